// Each transport of a client through a link of its own, in Node and in a browser.
import { loaders } from "../../sdk/packages/core/src/transports/index.ts";

const at = (url, link) => (url ? link.replace(/^http/, new URL(url).protocol.startsWith("ws") ? "ws" : "http") + new URL(url).pathname : url);

/** The stock transports; `links` says where each goes in place of the gateway. */
export function through(links) {
  return Object.fromEntries(
    Object.entries(loaders).map(([name, load]) => [name, async () => {
      const transport = await load();
      const link = links[name];
      if (!link) return transport;
      return (context, sink, signal) => {
        const urls = { socketio: at(context.urls.socketio, link), "mqtt-websocket": at(context.urls["mqtt-websocket"], link) };
        const fetch = async (path, abort) => {
          const headers = context.token === null ? {} : { authorization: `Bearer ${context.token}` };
          return globalThis.fetch(link + path, { signal: abort, headers });
        };
        return transport({ ...context, urls, fetch }, sink, signal);
      };
    }]),
  );
}
