// Stock mqtt.js clients, driven by lines of JSON on standard input, reporting as lines of JSON.
//
//   {"do":"connect","name":…,"url":…,"options":{…}}   options.will.payload is hexadecimal, as all payloads here
//   {"do":"subscribe","name":…,"topic":…,"options":{…}}   {"do":"publish","name":…,"topic":…,"payload":…,"options":{…}}
//   {"do":"drop","name":…}  cuts the connection below the client   {"do":"end","name":…}
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const clients = new Map();
const bytes = (hex) => Buffer.from(hex, "hex");

const commands = {
  connect({ name, url, options }) {
    if (options.will) options.will.payload = bytes(options.will.payload);
    const client = mqtt.connect(url, { reconnectPeriod: 0, ...options });
    clients.set(name, client);
    client.on("connect", (connack) => say({ is: "connect", name, sessionPresent: connack.sessionPresent }));
    client.on("error", (error) => say({ is: "error", name, message: error.message }));
    client.on("close", () => say({ is: "close", name }));
    client.on("message", (topic, payload, { qos, retain, properties }) =>
      say({ is: "message", name, topic, payload: payload.toString("hex"), qos, retain, properties: properties ?? {} }),
    );
  },
  subscribe({ name, topic, options }) {
    clients.get(name).subscribe(topic, options, (error, granted) => say({ is: "subscribed", name, error: error?.message ?? null, granted }));
  },
  publish({ name, topic, payload, options }) {
    clients.get(name).publish(topic, bytes(payload), options, (error) => say({ is: "published", name, error: error?.message ?? null }));
  },
  drop({ name }) {
    clients.get(name).stream.destroy();
  },
  end({ name }) {
    clients.get(name).end();
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
