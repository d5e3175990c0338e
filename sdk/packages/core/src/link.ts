/** One connection over one transport: what it hears, and whether it still lives. */
import { GaplessError, toError } from "./errors.ts";
import type { Inbox } from "./inbox.ts";
import { reaches } from "./position.ts";
import type { RoomDescription } from "./rooms.ts";
import { bounded, checkBound, closed, Mean, silenceBound } from "./time.ts";
import type { HttpDoor, OpenContext, Session, Sink, Transport } from "./transport.ts";
import type { Bounds, Platform, TransportName } from "./types.ts";

export interface LinkHost {
  readonly platform: Platform;
  readonly http: HttpDoor;
  readonly inbox: Inbox;
  readonly bounds: Bounds;
  /** The smoothed round trip in milliseconds. */
  readonly latency: Mean;
  /** An event was received, over whichever link. */
  received(): void;
  /** Rooms may be heard no more. */
  revoked(rooms: readonly string[]): void;
  notice(name: string, body: unknown): void;
  /** The link is lost; it is closed already. */
  lost(link: Link, error: GaplessError): void;
}

export class Link implements Sink {
  readonly name: TransportName;
  /** What it hears. */
  rooms: readonly RoomDescription[] = [];
  /** The rooms that were asked for, refused ones too. */
  asked: readonly string[] = [];
  /** With which token. */
  token: string | null = null;
  session: Session | null = null;
  /** When everything was there for the first time; null before. */
  wholeSince: number | null = null;
  private readonly host: LinkHost;
  private readonly abort = new AbortController();
  private readonly gaps = new Mean();
  private lastSign: number;
  private due = Infinity;
  private unwatch: () => void = () => {};
  private checking = false;
  private failure: GaplessError | null = null;

  constructor(name: TransportName, host: LinkHost) {
    this.name = name;
    this.host = host;
    this.lastSign = host.platform.now();
  }

  /** Open it within the context's bound. */
  async open(transport: Transport, context: OpenContext, signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", this.close, { signal: this.abort.signal });
    const opening = transport(context, this, this.abort.signal);
    opening.then((session) => this.abort.signal.aborted && session.close(), () => {});
    this.session = await this.within(context.bound, opening);
    this.alive();
  }

  /** Hear exactly these rooms; see `Session.subscribe`. */
  async subscribe(rooms: readonly RoomDescription[], after: string, bound: number): Promise<void> {
    if (!this.session) throw closed();
    await this.within(bound, this.session.subscribe(rooms, after));
    this.rooms = rooms;
  }

  get isOpen(): boolean {
    return !this.abort.signal.aborted;
  }

  /** The promise within a bound; rejects at once where the link ends. */
  private async within<T>(bound: number, promise: PromiseLike<T>): Promise<T> {
    try {
      return await bounded(this.host.platform, bound, promise, this.abort.signal);
    } catch (error) {
      throw this.failure ?? toError(error);
    }
  }

  readonly close = (): void => {
    if (!this.isOpen) return;
    this.unwatch();
    this.abort.abort();
    this.session?.close();
  };

  // --- what the transport tells

  event(event: Parameters<Sink["event"]>[0]): void {
    if (!this.isOpen) return;
    this.alive();
    this.host.received();
    this.host.inbox.event(event);
    if (this.host.inbox.full) this.fail(new GaplessError("overloaded", "handlers do not keep up", { retryable: true }));
  }

  moved(position: string): void {
    if (this.isOpen) this.host.inbox.moved(position);
  }

  gap(position: string | null): void {
    if (this.isOpen) this.host.inbox.gap(position, "expired");
  }

  revoked(rooms: readonly string[]): void {
    if (this.isOpen) this.host.revoked(rooms);
  }

  notice(name: string, body: unknown): void {
    if (this.isOpen) this.host.notice(name, body);
  }

  down(error: GaplessError): void {
    this.fail(error);
  }

  alive(): void {
    const now = this.host.platform.now();
    this.gaps.add(now - this.lastSign);
    this.lastSign = now;
    if (this.session && now + this.bound() < this.due - 500) this.watch(now + this.bound());
  }

  private fail(error: GaplessError): void {
    if (!this.isOpen) return;
    this.failure = error;
    this.close();
    this.host.lost(this, error);
  }

  // --- silence

  private bound(): number {
    return silenceBound(this.gaps, this.session?.heartbeat ?? Infinity, this.host.bounds.silence);
  }

  private watch(due: number): void {
    this.unwatch();
    this.due = due;
    this.unwatch = this.host.platform.timer(this.look, Math.max(0, due - this.host.platform.now()));
  }

  private readonly look = (): void => {
    if (!this.isOpen) return;
    const now = this.host.platform.now();
    const silence = now - this.lastSign;
    const most = 1.5 * (this.session?.heartbeat ?? Infinity);
    this.due = Infinity;
    if (silence >= most && !this.session?.ping) return this.fail(tooSilent(silence));
    if (silence < this.bound()) return this.watch(this.lastSign + this.bound());
    // Checked, and well: again when the silence has doubled, until even the heartbeat is missing.
    this.watch(this.lastSign + (silence < most ? Math.min(most, 2 * silence) : silence + most));
    void this.check();
  };

  /** Ask whether it lives, and whether something is missing; where so it is lost. */
  async check(): Promise<void> {
    if (this.checking || !this.isOpen || !this.session) return;
    this.checking = true;
    try {
      await Promise.all([this.ping(), this.compare()]);
    } catch (error) {
      this.fail(toError(error));
    } finally {
      this.checking = false;
    }
  }

  private async ping(): Promise<void> {
    if (!this.session?.ping) return;
    const began = this.host.platform.now();
    await this.within(this.checkBound, this.session.ping());
    this.host.latency.add(this.host.platform.now() - began);
    this.alive();
  }

  /** Whether the gateway has events that did not come here. */
  private async compare(): Promise<void> {
    const { http, inbox, platform } = this.host;
    const rooms = this.rooms.map(({ room }) => room);
    const bound = this.checkBound;
    let missing: string | null | undefined;
    try {
      const after = inbox.received;
      if (rooms.length && after !== null) {
        const page = await this.within(bound, http.history(rooms, after, 1, bound, this.abort.signal));
        missing = page.events[0]?.position;
      } else await this.within(bound, http.describe([], bound, this.abort.signal));
    } catch (error) {
      // A gateway that is busy, or wants another token, is there; a ping says what else is to be said.
      const { code } = toError(error);
      if (code === "timeout" || code === "network" || !this.session?.ping) throw error;
      return;
    }
    if (!missing || reaches(inbox.received ?? "", missing)) return;
    await this.within(bound + 1000, new Promise<void>((resolve) => platform.timer(resolve, bound)));
    if (!reaches(inbox.received ?? "", missing)) throw tooSilent(platform.now() - this.lastSign);
  }

  private get checkBound(): number {
    return checkBound(this.host.latency.value, this.host.bounds.check);
  }
}

function tooSilent(ms: number): GaplessError {
  return new GaplessError("timeout", `nothing arrived for ${Math.round(ms)} ms`, { retryable: true });
}
