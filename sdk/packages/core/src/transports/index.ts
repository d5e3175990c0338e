import type { TransportLoaders } from "../transport.ts";

/** Each transport is loaded, with its library, when it is used first. */
export const loaders: TransportLoaders = {
  socketio: async () => (await import("./socketio.ts")).socketio,
  mqtt: async () => (await import("./mqtt.ts")).mqtt,
  sse: async () => (await import("./sse.ts")).sse,
  poll: async () => (await import("./poll.ts")).poll,
};
