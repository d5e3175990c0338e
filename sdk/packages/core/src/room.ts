/** One room's handlers, and whether it is heard. */
import { GaplessError } from "./errors.ts";
import type { EventMap, Handler, RealtimeEvent, Room, Unsubscribe } from "./types.ts";

export class RoomHandlers implements Room<EventMap> {
  readonly name: string;
  private readonly changed: () => void;
  private readonly failed: (error: GaplessError) => void;
  private readonly handlers = new Map<string, Set<Handler>>();
  private count = 0;
  private waiters: { resolve: () => void; reject: (error: GaplessError) => void }[] = [];
  private state: "waiting" | "heard" | GaplessError = "waiting";

  constructor(name: string, changed: () => void, failed: (error: GaplessError) => void) {
    this.name = name;
    this.changed = changed;
    this.failed = failed;
  }

  get isWanted(): boolean {
    return this.count > 0;
  }

  on(type: string, handler: Handler): Unsubscribe {
    const own: Handler = (data, event) => handler(data, event); // so that the same one may be there twice
    const handlers = this.handlers.get(type) ?? new Set();
    this.handlers.set(type, handlers);
    handlers.add(own);
    if (++this.count === 1) this.changed();
    return () => {
      if (!handlers.delete(own)) return;
      if (--this.count === 0) {
        this.state = "waiting";
        this.changed();
      }
    };
  }

  ready(): Promise<void> {
    if (this.state === "heard") return Promise.resolve();
    if (this.state !== "waiting") return Promise.reject(this.state);
    return new Promise((resolve, reject) => this.waiters.push({ resolve, reject }));
  }

  joined(): void {
    if (!this.isWanted) return;
    this.state = "heard";
    for (const { resolve } of this.waiters.splice(0)) resolve();
  }

  /** It is refused; whether that is news. */
  refuse(error: GaplessError): boolean {
    const before = this.state;
    this.state = error;
    for (const { reject } of this.waiters.splice(0)) reject(error);
    return !(before instanceof GaplessError && before.code === error.code);
  }

  /** Call the handlers of an event; a promise where one gives a promise. It neither throws nor rejects. */
  handle(event: RealtimeEvent): Promise<void> | null {
    let waits: PromiseLike<unknown>[] | null = null;
    for (const type of [event.type, "*"]) {
      for (const handler of this.handlers.get(type) ?? []) {
        try {
          const done = handler(event.data, event);
          if (done && typeof done.then === "function") (waits ??= []).push(done.then(undefined, this.fails));
        } catch (error) {
          this.fails(error);
        }
      }
    }
    return waits && Promise.all(waits).then(() => {});
  }

  private readonly fails = (cause: unknown): void => {
    this.failed(new GaplessError("handler_failed", `a handler failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause }));
  };
}
