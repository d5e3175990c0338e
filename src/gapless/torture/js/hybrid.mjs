// One hybrid client (sdk/packages/core) under torture, by the configuration in the file named by the first argument
// (gapless.torture.subscriber.SubscriberConfig). It journals what its handlers get; its journal is its cursor after a kill.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { commands, config, Journal } from "./shared.mjs";

const { createClient } = await import(pathToFileURL(join(config.sdk, "src", "index.ts")).href);
const journal = new Journal(config.journal);
const position = journal.earlier.findLast((line) => line.is === "event" && line.pos)?.pos ?? config.start;
journal.write("started", { pid: process.pid });
commands();

// Each client has another transport on top.
const ladder = ["socketio", "mqtt", "sse", "poll"];
const turn = [...config.name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % ladder.length;
const rt = createClient({ url: config.url, from: position, transports: [...ladder.slice(turn), ...ladder.slice(0, turn)] });

let before = null;
rt.status.subscribe(() => {
  const { connection, transport, error } = rt.status.getSnapshot();
  const whole = connection === "live" || connection === "degraded" ? transport : null;
  if (whole === before) return;
  if (whole) journal.write("connected", { transport: whole });
  else if (before) journal.write("lost", { why: error?.message ?? connection });
  before = whole;
});
rt.on("gap", ({ position }) => journal.write("hole", { pos: position }));
rt.on("error", ({ error, room }) => journal.write("refused", { why: `${error.code} ${error.message}`, room }));

// An event in two of the rooms comes to each of them; the application wants it once.
let last = null;
for (const room of config.rooms) {
  rt.room(room).on("*", (data, { id, position }) => {
    if (position === last) return;
    last = position;
    journal.event(data, { id, pos: position });
  });
}
