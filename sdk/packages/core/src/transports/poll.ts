/** Long polling: what gets through everywhere. */
import { fromEnvelope, type Envelope } from "../envelope.ts";
import { toError } from "../errors.ts";
import { roomsQuery } from "../gateway.ts";
import type { RoomDescription } from "../rooms.ts";
import type { OpenContext, Session, Sink, Transport } from "../transport.ts";

const WAIT = 25;

interface Answer {
  position: string;
  complete: boolean;
  events: Envelope[];
}

export const poll: Transport = async ({ fetch }: OpenContext, sink: Sink, signal: AbortSignal): Promise<Session> => {
  let current = new AbortController();
  const close = () => current.abort();
  signal.addEventListener("abort", close, { once: true });

  async function subscribe(rooms: readonly RoomDescription[], after: string): Promise<void> {
    current.abort();
    const mine = (current = new AbortController()).signal;
    if (!rooms.length) return;
    const query = roomsQuery(rooms.map(({ room }) => room));
    const ask = async (from: string, wait: number): Promise<string> => {
      const response = await fetch(`/api/events?${query}&after=${encodeURIComponent(from)}&limit=500&wait=${wait}`, mine);
      const { position, complete, events } = (await response.json()) as Answer;
      if (mine.aborted) return position;
      sink.alive();
      if (!complete) sink.gap(null);
      for (const event of events) sink.event(fromEnvelope(event));
      sink.moved(position);
      return position;
    };
    // The first answer, which does not wait, shows that it works.
    void follow(ask, await ask(after, 0), mine);
  }

  async function follow(ask: (from: string, wait: number) => Promise<string>, position: string, mine: AbortSignal): Promise<void> {
    try {
      while (!mine.aborted) position = await ask(position, WAIT);
    } catch (cause) {
      if (!mine.aborted) sink.down(toError(cause));
    }
  }

  return { heartbeat: 30_000, subscribe, close };
};
