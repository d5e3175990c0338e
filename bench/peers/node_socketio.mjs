// Node socket.io as its documentation says, and, with a broker's port, the usual bridge to and from MQTT.
//   node bench/peers/node_socketio.mjs [MQTT_PORT]
import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../tests/js/package.json", import.meta.url));
const { Server } = require("socket.io");

// The same arguments as Gapless sends, so that both write the same bytes.
const meta = {
  id: "019b76da-a800-7000-8000-000000000001",
  topic: "crm/leads/123/updated",
  time: "2026-01-01T00:00:00.125Z",
  userId: null,
};
const position = "k3x9a2bq:1000000";

const roomOf = (topic) => `lead:${topic.split("/")[2]}`;
let client; // of the broker

const http = createServer();
const io = new Server(http, { transports: ["websocket"] });

io.on("connection", (socket) => {
  socket.on("subscribe", (document, answer) => {
    socket.join(document.rooms);
    answer({ ok: true });
  });
  socket.on("publish", (document, answer) => {
    if (client === undefined) {
      io.to(roomOf(document.topic)).emit(document.type, document.data, meta, position);
      answer({ ok: true });
    } else {
      client.publish(document.topic, JSON.stringify(document.data), { qos: 1 }, () => answer({ ok: true }));
    }
  });
});

const listening = () =>
  http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () =>
    console.log(JSON.stringify({ http: http.address().port, pid: process.pid })),
  );

const broker = process.argv[2];
if (broker === undefined) {
  listening();
} else {
  client = require("mqtt").connect(`mqtt://127.0.0.1:${broker}`);
  client.on("message", (topic, payload) => {
    io.to(roomOf(topic)).emit("lead:updated", JSON.parse(payload.toString()), meta, position);
  });
  client.on("connect", () => client.subscribe("crm/leads/+/+", { qos: 1 }, listening));
}
