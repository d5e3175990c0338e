/** Socket.IO, by the stock socket.io-client. */
import { io } from "socket.io-client";
import { fromWire, GaplessError, toError, type WireError } from "../errors.ts";
import type { RoomDescription } from "../rooms.ts";
import type { OpenContext, Session, Sink, Transport } from "../transport.ts";

/** Acknowledgements of the gateway. */
type Answer = { ok: true; position?: string; complete?: boolean } | { ok: false; error: WireError };
interface Meta {
  id: string;
  topic: string;
  time: string;
  userId?: string | null;
}

/**
 * A WebSocket alone: where none gets through, the ladder has better than Socket.IO's polling. The cursor is the client's own, so the library's recovery
 * and reconnection are not used.
 */
export const socketio: Transport = ({ url, urls, token, bound }: OpenContext, sink: Sink, signal: AbortSignal) =>
  new Promise<Session>((resolve, reject) => {
    const at = new URL(urls["socketio"] ?? `${url}/socket.io/`);
    const socket = io(at.origin, {
      path: at.pathname, transports: ["websocket"], auth: token === null ? {} : { token }, reconnection: false, forceNew: true, timeout: bound,
    });
    const hearing = new Set<string>();
    let started = false;
    let heartbeat = 25_000;
    let reason: GaplessError | null = null;
    const close = () => void socket.disconnect();
    signal.addEventListener("abort", close, { once: true });

    const engine = socket.io.engine;
    engine.on("handshake", ({ pingInterval }) => (heartbeat = pingInterval));
    engine.on("packet", () => sink.alive());

    const ask = (name: string, body: object) =>
      new Promise<Extract<Answer, { ok: true }>>((done, fail) =>
        socket.emit(name, body, (answer: Answer) => {
          if (!answer.ok) return fail(fromWire(answer.error));
          // At once, and not in a later microtask: the events behind the answer may be in the same message.
          if (answer.complete === false) sink.gap(answer.position ?? null);
          done(answer);
        }),
      );

    async function subscribe(rooms: readonly RoomDescription[], after: string): Promise<void> {
      const wanted = new Set(rooms.map(({ room }) => room));
      const added = [...wanted].filter((room) => !hearing.has(room));
      const left = [...hearing].filter((room) => !wanted.has(room));
      for (const room of added) hearing.add(room);
      for (const room of left) hearing.delete(room);
      const first = !started;
      started = true;
      await Promise.all([
        added.length ? ask("subscribe", first ? { rooms: added, after } : { rooms: added }) : null,
        left.length ? ask("unsubscribe", { rooms: left }) : null,
      ]);
    }

    socket.on("connect", () =>
      resolve({
        get heartbeat() {
          return heartbeat;
        },
        subscribe,
        ping: async () => void (await ask("gapless:ping", {})),
        renew: async (fresh) => void (await ask("authenticate", { token: fresh })),
        request: ask,
        close,
      }),
    );
    socket.on("connect_error", (error: Error & { data?: WireError }) => {
      reject(error.data?.code ? fromWire(error.data) : toError(error));
      close();
    });
    socket.on("disconnect", (why) => sink.down(reason ?? new GaplessError("network", why, { retryable: true })));
    socket.onAny((name: string, data: unknown, meta?: Meta, position?: string) => {
      if (name === "gapless:unauthorized") reason = fromWire({ ...(data as WireError), details: { reason: (data as { reason?: string }).reason } });
      else if (name === "gapless:revoked") sink.revoked((data as { rooms: string[] }).rooms);
      else if (name === "gapless:incomplete") sink.gap((data as { position: string }).position);
      else if (meta?.id === undefined) sink.notice(name, data);
      else {
        const { id, topic, time, userId = null } = meta;
        sink.event({ id, type: name, topic, data: bytes(data), time, userId, position: position ?? null });
      }
    });
  });

function bytes(data: unknown): unknown {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  // A Buffer of Node is a Uint8Array with surprises of its own.
  return data instanceof Uint8Array ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : data;
}
