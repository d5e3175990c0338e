// One stock JavaScript client under torture, by the configuration in the file named by the first argument
// (gapless.torture.subscriber.SubscriberConfig). It journals what it hears. What it resumes from is its
// library's own memory while the process lives, and its journal after the process was killed.
import { commands, config, Journal, load } from "./shared.mjs";

const journal = new Journal(config.journal);
const wasHere = journal.earlier.some((line) => line.is === "connected");
let position = journal.earlier.findLast((line) => line.is === "event" && line.pos)?.pos ?? config.start;
journal.write("started", { pid: process.pid });
commands();

function socketio(transports) {
  const { io } = load("socket.io-client");
  const socket = io(config.url, { transports, reconnectionDelay: 100, reconnectionDelayMax: 1000, timeout: 5000 });
  let subscribed = false;
  let hadSession = false;
  socket.on("connect", () => {
    journal.write("connection", { transport: socket.io.engine.transport.name, ...(hadSession ? { recovered: socket.recovered } : {}) });
    hadSession = true;
    if (socket.recovered && subscribed) return journal.write("connected", { transport: "socketio" });
    subscribed = false;
    subscribe();
  });
  const subscribe = () =>
    socket.timeout(5000).emit("subscribe", { rooms: config.rooms, after: position }, (error, answer) => {
      if (error || !answer.ok) {
        const why = error?.message ?? JSON.stringify(answer.error);
        journal.write(error || answer.error.retryable ? "lost" : "refused", { why });
        return setTimeout(() => socket.connected && !subscribed && subscribe(), 200);
      }
      if (!answer.complete) journal.write("hole", { pos: answer.position });
      subscribed = true;
      journal.write("connected", { transport: "socketio" });
    });
  socket.on("disconnect", (why) => journal.write("lost", { why }));
  socket.on("gapless:incomplete", (about) => journal.write("hole", { pos: about.position }));
  socket.onAny((name, data, meta, pos) => {
    if (name === "gapless:incomplete") return;
    journal.event(data, { id: meta?.id, pos });
    position = pos;
  });
}

function eventsource() {
  const { EventSource } = load("eventsource");
  const query = new URLSearchParams({ rooms: config.rooms.join(","), after: position });
  const source = new EventSource(`${config.url}/api/stream?${query}`);
  source.onopen = () => journal.write("connected", { transport: "sse" });
  source.onmessage = ({ data, lastEventId }) => {
    const event = JSON.parse(data);
    journal.event(event.data, { id: event.id, pos: lastEventId });
    position = lastEventId;
  };
  source.addEventListener("gapless.incomplete", (event) => journal.write("hole", { pos: event.lastEventId }));
  source.onerror = (error) => {
    journal.write("lost", { why: error.message ?? "" });
    if (source.readyState !== source.CLOSED) return;
    setTimeout(eventsource, 300); // an answer that is no stream ends an EventSource for good: begin anew
  };
}

function mqtt(qos, protocolVersion) {
  const five = protocolVersion === 5 ? { properties: { sessionExpiryInterval: 86400 } } : {};
  const client = load("mqtt").connect(config.url, {
    clientId: `torture-${config.name}`, clean: false, protocolVersion, ...five,
    reconnectPeriod: 300, connectTimeout: 5000, keepalive: 5, resubscribe: false, reconnectOnConnackError: true,
  });
  let isNew = !wasHere;
  client.on("connect", ({ sessionPresent }) => {
    journal.write("connection", { transport: "mqtt", ...(isNew ? {} : { session: sessionPresent }) });
    // A session may be that of a CONNECT whose answer came too late: nothing was subscribed in it.
    if (sessionPresent && !isNew) return journal.write("connected", { transport: "mqtt" });
    client.subscribe(config.filters, { qos }, (error) => {
      if (error) return journal.write("refused", { why: error.message });
      isNew = false;
      journal.write("connected", { transport: "mqtt" });
    });
  });
  client.on("close", () => journal.write("lost", { why: "closed" }));
  client.on("error", (error) => journal.write("lost", { why: error.message }));
  client.on("message", (topic, payload, packet) => {
    const document = JSON.parse(payload.toString());
    const user = packet.properties?.userProperties ?? {};
    journal.event(document.data ?? document, { id: user.id, pos: user.position, qos: packet.qos, dup: packet.dup });
  });
}

const kinds = {
  "js-socketio": () => socketio(["polling", "websocket"]),
  "js-polling": () => socketio(["polling"]),
  "js-eventsource": eventsource,
  "js-mqtt1": () => mqtt(1, 5),
  "js-mqtt2": () => mqtt(2, 4),
};
kinds[config.kind]();
