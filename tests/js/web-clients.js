// Stock socket.io-client and EventSource clients, driven by lines of JSON on standard input, reporting as lines of JSON.
//
//   {"do":"socketio","name":…,"url":…,"options":{…}}   {"do":"emit","name":…,"event":…,"args":[…]}
//   {"do":"eventsource","name":…,"url":…}   {"do":"close","name":…}
import { createInterface } from "node:readline";
import { EventSource } from "eventsource";
import { io } from "socket.io-client";

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const clients = new Map();

const commands = {
  socketio({ name, url, options }) {
    const socket = io(url, { forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
    clients.set(name, socket);
    socket.on("connect", () => say({ is: "connect", name, recovered: socket.recovered }));
    socket.on("disconnect", (reason) => say({ is: "disconnect", name, reason }));
    socket.onAny((event, ...args) => say({ is: "event", name, event, args }));
  },
  emit({ name, event, args }) {
    clients.get(name).emit(event, ...args, (answer) => say({ is: "answer", name, answer }));
  },
  eventsource({ name, url }) {
    const source = new EventSource(url);
    clients.set(name, source);
    source.onopen = () => say({ is: "connect", name });
    source.onerror = (error) => say({ is: "disconnect", name, reason: error.message ?? null });
    const tell = ({ type, data, lastEventId }) => say({ is: "event", name, event: type, data: JSON.parse(data), id: lastEventId });
    for (const type of ["message", "gapless.incomplete"]) source.addEventListener(type, tell);
  },
  close({ name }) {
    clients.get(name).close();
    clients.delete(name);
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
