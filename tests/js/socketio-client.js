// A stock socket.io-client, driven by lines of JSON on standard input, reporting as lines of JSON.
//
//   {"do":"connect","url":…,"options":{…}}   {"do":"emit","event":…,"args":[…],"tag":…}
//   {"do":"drop"}  cuts the connection below the client, as a network does
//   {"do":"connect-again","auth":{…}}  {"do":"disconnect"}  {"do":"exit"}
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
let socket;

const plain = (value) => (value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? { hex: Buffer.from(value).toString("hex") } : value);

const commands = {
  connect({ url, options }) {
    socket = io(url, { reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
    socket.on("connect", () => say({ is: "connect", id: socket.id, recovered: socket.recovered, transport: socket.io.engine.transport.name }));
    socket.on("disconnect", (reason) => say({ is: "disconnect", reason }));
    socket.on("connect_error", (error) => say({ is: "connect_error", message: error.message, data: error.data ?? null }));
    socket.io.on("open", () => socket.io.engine.on("upgrade", (transport) => say({ is: "upgrade", transport: transport.name })));
    socket.onAny((event, ...args) => say({ is: "event", event, args: args.map(plain) }));
  },
  emit({ event, args, tag }) {
    const values = args.map((value) => (value && value.data && value.data.hex !== undefined ? { ...value, data: Buffer.from(value.data.hex, "hex") } : value));
    socket.emit(event, ...values, (answer) => say({ is: "answer", tag, answer }));
  },
  drop() {
    socket.io.engine.transport.close?.();
    socket.io.engine.close();
  },
  "connect-again"({ auth }) {
    if (auth) socket.auth = auth;
    socket.connect();
  },
  disconnect() {
    socket.disconnect();
  },
  exit() {
    process.exit(0);
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
