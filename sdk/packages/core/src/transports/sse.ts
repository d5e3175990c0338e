/** Server-sent events over a `fetch` stream: the token goes in a header, where proxies do not log it. */
import { fromEnvelope, type Envelope } from "../envelope.ts";
import { fromWire, GaplessError, toError, type WireError } from "../errors.ts";
import { roomsQuery } from "../gateway.ts";
import type { RoomDescription } from "../rooms.ts";
import type { OpenContext, Session, Sink, Transport } from "../transport.ts";

export const sse: Transport = async ({ fetch, keepalive }: OpenContext, sink: Sink, signal: AbortSignal): Promise<Session> => {
  if (typeof ReadableStream === "undefined" || typeof TextDecoderStream === "undefined") throw new GaplessError("no_transport", "no streams here", { retryable: true });
  let current = new AbortController();
  const close = () => current.abort();
  signal.addEventListener("abort", close, { once: true });

  async function subscribe(rooms: readonly RoomDescription[], after: string): Promise<void> {
    current.abort();
    const mine = (current = new AbortController());
    if (!rooms.length) return;
    const query = `${roomsQuery(rooms.map(({ room }) => room))}&after=${encodeURIComponent(after)}`;
    const { body } = await fetch(`/api/stream?${query}`, mine.signal);
    if (!body) throw new GaplessError("no_transport", "answers cannot be streamed here", { retryable: true });
    void follow(body, mine.signal);
  }

  async function follow(body: ReadableStream<Uint8Array>, mine: AbortSignal): Promise<void> {
    let error = new GaplessError("network", "the stream ended", { retryable: true });
    try {
      const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
      const parser = new EventStream((name, data) => {
        if (mine.aborted) return;
        const last = take(name, data, sink);
        if (last) error = last;
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done || mine.aborted) break;
        sink.alive();
        parser.feed(value);
      }
    } catch (cause) {
      error = toError(cause);
    }
    if (!mine.aborted) sink.down(error);
  }

  return { heartbeat: keepalive.sse_heartbeat_seconds * 1000, subscribe, close };
};

/** Hand on one event; the error that ends the stream, where it is that. */
function take(name: string, data: string, sink: Sink): GaplessError | null {
  const body: unknown = JSON.parse(data);
  switch (name) {
    case "message":
      sink.event(fromEnvelope(body as Envelope));
      break;
    case "gapless.position":
      sink.moved((body as { position: string }).position);
      break;
    case "gapless.incomplete":
      sink.gap((body as { position: string }).position);
      break;
    case "gapless.revoked":
      sink.revoked((body as { rooms: string[] }).rooms);
      break;
    case "gapless.unauthorized":
      return fromWire({ ...(body as WireError), details: { reason: (body as { reason?: string }).reason } });
    default:
      sink.notice(name, body);
  }
  return null;
}

/** Reads an event stream (HTML Living Standard §9.2.6) from pieces of text. */
export class EventStream {
  private rest = "";
  private name = "";
  private data: string[] = [];
  private readonly dispatch: (name: string, data: string) => void;

  constructor(dispatch: (name: string, data: string) => void) {
    this.dispatch = dispatch;
  }

  feed(text: string): void {
    const lines = (this.rest + text).split("\n"); // the gateway ends lines so, always
    this.rest = lines.pop() as string;
    for (const line of lines) this.line(line);
  }

  private line(line: string): void {
    if (line === "") {
      if (this.data.length) this.dispatch(this.name || "message", this.data.join("\n"));
      this.name = "";
      this.data = [];
    } else if (line.startsWith("data:")) this.data.push(line.slice(line[5] === " " ? 6 : 5));
    else if (line.startsWith("event:")) this.name = line.slice(6).trim();
  }
}
