// aedes as its documentation says: everything in memory.
//   node bench/peers/aedes.mjs
import { createRequire } from "node:module";
import { createServer } from "node:net";

const require = createRequire(new URL("../../.venv/bench/node/package.json", import.meta.url));
const { Aedes } = require("aedes");

const broker = await Aedes.createBroker();
const server = createServer((socket) => {
  socket.setNoDelay(true);
  broker.handle(socket);
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () =>
  console.log(JSON.stringify({ mqtt: server.address().port, pid: process.pid })),
);
