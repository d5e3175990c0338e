// Prints which of the stock clients can be loaded, as one line of JSON.
import { io } from "socket.io-client";
import mqtt from "mqtt";
import { EventSource } from "eventsource";
import { Server } from "socket.io";

const loaded = {
  "socket.io-client": typeof io,
  mqtt: typeof mqtt.connect,
  eventsource: typeof EventSource,
  "socket.io": typeof Server,
};
console.log(JSON.stringify(loaded));
