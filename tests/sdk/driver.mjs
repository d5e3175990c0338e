// Hybrid clients of sdk/packages/core, driven by lines of JSON on standard input, reporting as lines of JSON.
//
//   {"do":"create","name":…,"options":{…},"links":{"sse":url,…}}   links: where each transport goes, in place of the url
//   {"do":"join"|"leave","name":…,"room":…}   {"do":"publish","name":…,"publication":{…}}
//   {"do":"device","name":…,"signal":…}   {"do":"reconnect"|"close"|"status","name":…}   {"do":"token","name":…,"token":…}
import { createInterface } from "node:readline";
import { createClient } from "../../sdk/packages/core/src/client.ts";
import { through } from "./links.mjs";

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const clients = new Map();

const commands = {
  create({ name, options, links = {}, quiet = false }) {
    const held = { token: options.token ?? null, rooms: new Map(), device: () => {} };
    const platform = { listen: (listener) => ((held.device = listener), () => {}), ...options.platform };
    const token = options.token === undefined ? undefined : async () => held.token;
    const rt = createClient({ ...options, token, platform }, { loaders: through(links) });
    clients.set(name, Object.assign(held, { rt, quiet }));
    let last = "";
    rt.status.subscribe(() => {
      const { connection, transport, failovers, lastFailover, error, queueLength } = rt.status.getSnapshot();
      const now = JSON.stringify([connection, transport, error?.code ?? null]);
      if (now !== last) say({ is: "status", name, connection, transport, failovers, reason: lastFailover?.reason ?? null, error: error?.code ?? null, queueLength });
      last = now;
    });
    rt.on("gap", (gap) => say({ is: "gap", name, ...gap }));
    rt.on("error", ({ error, room }) => say({ is: "error", name, code: error.code, room }));
    rt.on("sent", ({ id, error }) => say({ is: "sent", name, id, error: error?.code ?? null }));
  },
  join({ name, room, type = "*" }) {
    const { rt, rooms } = clients.get(name);
    rooms.set(room, rt.room(room).on(type, (data, { id, type, position, topic, time, userId }) => {
      const shown = data instanceof Uint8Array ? { bytes: [...data] } : data;
      say({ is: "event", name, room, id, type, topic, data: shown, position, time, userId });
    }));
    rt.room(room).ready().then(() => say({ is: "ready", name, room }), (error) => say({ is: "refused", name, room, code: error.code }));
  },
  leave({ name, room }) {
    clients.get(name).rooms.get(room)();
  },
  publish({ name, publication }) {
    const data = publication.bytes ? { ...publication, data: new Uint8Array(publication.bytes), bytes: undefined } : publication;
    clients.get(name).rt.publish(data).then(
      (published) => say({ is: "published", name, ...published }),
      ({ code, details }) => say({ is: "unpublished", name, id: publication.id ?? null, code, details }),
    );
  },
  device: ({ name, signal }) => clients.get(name).device(signal),
  watch({ name, room }) {
    const presence = clients.get(name).rt.presence(room);
    const tell = () => say({ is: "present", name, room, members: presence.getSnapshot() });
    presence.subscribe(tell);
  },
  reconnect: ({ name }) => clients.get(name).rt.reconnect(),
  token({ name, token }) {
    clients.get(name).token = token;
  },
  status: ({ name }) => say({ is: "snapshot", name, ...clients.get(name).rt.status.getSnapshot() }),
  async close({ name }) {
    await clients.get(name).rt.close();
    clients.delete(name);
    say({ is: "closed", name });
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  try {
    commands[command.do](command);
  } catch (error) {
    say({ is: "thrown", name: command.name, code: error.code ?? null, message: error.message });
  }
}).on("close", () => process.exit(0));
