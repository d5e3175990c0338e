/** Keeps one link to the gateway: the state machine of docs/client-protocol.md. */
import { GaplessError, toError } from "./errors.ts";
import type { Inbox } from "./inbox.ts";
import { Link, type LinkHost } from "./link.ts";
import { patch, type Store } from "./observable.ts";
import { parsePosition, reaches } from "./position.ts";
import type { RoomDescription } from "./rooms.ts";
import { Backoff, bounded, Mean, openBound } from "./time.ts";
import type { Tokens } from "./tokens.ts";
import type { Description, HttpDoor, OpenContext, Transport } from "./transport.ts";
import type { Bounds, DeviceSignal, Platform, Status, TransportName } from "./types.ts";

const STABLE = 5000;
const STAND_BACK = 30_000;
const PAGE = 500;
const FORWARD_FIRST = 5000;
const FORWARD_MOST = 300_000;
const OFFLINE_RETRY = 30_000;
/** Names under which the gateway offers a transport. */
const OFFERS: Record<TransportName, readonly string[]> = { socketio: ["socketio"], mqtt: ["mqtt-websocket", "mqtt"], sse: ["sse"], poll: ["poll"] };

/** What the gateway says, and the rooms that it was asked for. */
interface View extends Description {
  readonly asked: readonly string[];
}

export interface ConnectorOptions {
  readonly url: string;
  readonly ladder: readonly TransportName[];
  /** Loads a transport; rejects where its library is not installed. */
  loaders(name: TransportName): Promise<Transport | undefined>;
  readonly http: HttpDoor;
  readonly inbox: Inbox;
  readonly tokens: Tokens;
  readonly platform: Platform;
  readonly status: Store<Status>;
  /** Where a client without a cursor begins: `now`, `start`, or a position. */
  readonly from: string;
  readonly bounds: Bounds;
  /** A request to the gateway, for streams and polls. */
  fetch: OpenContext["fetch"];
  /** The rooms that are wanted now. */
  rooms(): readonly string[];
  /** These rooms are heard now; those are refused. */
  heard(rooms: readonly RoomDescription[], refused: readonly RoomDescription[]): void;
  revoked(rooms: readonly string[]): void;
  notice(name: string, body: unknown): void;
  /** The gateway was reached: a connection is whole. */
  connected(): void;
}

export class Connector implements LinkHost {
  readonly latency = new Mean();
  private readonly options: ConnectorOptions;
  private readonly transports = new Map<TransportName, Transport | null>();
  private readonly delays: Backoff;
  private readonly forwardDelays: Backoff;
  /** Transports that come last in a round, and until when. */
  private readonly standBack = new Map<TransportName, number>();
  private active: Link | null = null;
  private lastName: TransportName | null = null;
  private lastLoss = "";
  private round: AbortController | null = null;
  private candidate: AbortController | null = null;
  private applying = false;
  private deviceOffline = false;
  private started = false;
  private closed = false;
  private cancelRetry = () => {};
  private cancelForward = () => {};
  private cancelStable = () => {};

  constructor(options: ConnectorOptions) {
    this.options = options;
    const { random } = options.platform;
    this.delays = new Backoff(random, 500, 30_000);
    this.forwardDelays = new Backoff(random, FORWARD_FIRST, FORWARD_MOST);
  }

  get platform(): Platform {
    return this.options.platform;
  }

  get http(): HttpDoor {
    return this.options.http;
  }

  get inbox(): Inbox {
    return this.options.inbox;
  }

  get bounds(): Bounds {
    return this.options.bounds;
  }

  /** The link that is whole now. */
  get link(): Link | null {
    return this.active;
  }

  start(): void {
    if (this.started || this.closed) return;
    this.started = true;
    this.tell({ connection: "connecting" });
    void this.connect();
  }

  /** Connect anew, now. */
  reconnect(): void {
    if (!this.started || this.closed) return this.start();
    this.drop();
    this.lastLoss = "reconnect";
    this.again();
  }

  close(): void {
    this.closed = true;
    this.drop();
    this.tell({ connection: "closed", transport: null, error: null, retryAt: null });
  }

  private drop(): void {
    for (const cancel of [this.cancelRetry, this.cancelForward, this.cancelStable]) cancel();
    this.round?.abort();
    this.candidate?.abort();
    this.round = this.candidate = null;
    const link = this.active;
    this.active = null;
    link?.close();
  }

  /** What is wanted has changed. */
  roomsChanged(): void {
    if (this.active && !this.applying) void this.applyRooms(this.active);
  }

  /** There is a fresh token, and the old one still holds. */
  async renewed(token: string | null): Promise<void> {
    const link = this.active;
    if (!link) return;
    try {
      if (link.session?.renew) return await bounded(this.platform, this.bound, link.session.renew(token));
    } catch {
      // A new connection then.
    }
    if (this.active === link) await this.forward([link.name], "renewed");
  }

  /** The device's word. */
  signal(signal: DeviceSignal): void {
    if (!this.started || this.closed || signal === "hidden" || signal === "shutdown") return;
    if (signal === "offline") {
      this.deviceOffline = true;
      return void this.active?.check();
    }
    if (signal !== "visible") this.deviceOffline = false;
    this.delays.reset();
    this.forwardDelays.reset();
    this.standBack.clear();
    const link = this.active;
    if (!link) return this.again();
    if (signal === "visible" || link.session?.ping) void link.check();
    else void this.reopen(link);
    if (this.degraded) void this.forward(null, "better");
  }

  // --- LinkHost

  received(): void {
    // Not told for each event: a second is exact enough for people, and spares renderings.
    const now = this.platform.now();
    if (now - (this.status.lastEventAt ?? 0) >= 1000) this.tell({ lastEventAt: now });
  }

  revoked(rooms: readonly string[]): void {
    this.options.revoked(rooms);
  }

  notice(name: string, body: unknown): void {
    this.options.notice(name, body);
  }

  lost(link: Link, error: GaplessError): void {
    if (link !== this.active) return; // one that is not whole yet: its opening fails
    this.drop();
    this.lastLoss = error.code;
    const flapped = link.wholeSince !== null && this.platform.now() - link.wholeSince < STABLE;
    if (flapped || error.code === "timeout") this.distrust(link.name);
    if (error.code === "unauthorized") this.options.tokens.refuse(link.token);
    this.tell({ connection: "connecting", transport: null, error, retryAt: null });
    void this.connect();
  }

  // --- attempts

  private again(): void {
    this.round?.abort();
    this.round = null;
    this.cancelRetry();
    this.delays.reset();
    this.standBack.clear();
    this.tell({ connection: "connecting", transport: null, retryAt: null });
    void this.connect();
  }

  /** One round over the ladder. */
  private async connect(): Promise<void> {
    const round = (this.round = new AbortController());
    const { signal } = round;
    let failure = new GaplessError("no_transport", "no transport can be used here", {
      retryable: true, hint: "install socket.io-client or mqtt, or allow sse or poll",
    });
    try {
      await bounded(this.platform, 2 ** 31 - 1, this.inbox.room(), signal);
      const about = await this.describe(signal);
      const ladder = await this.usable(about);
      for (const name of this.inOrder(ladder)) {
        try {
          const link = await this.open(name, about, signal, false);
          if (this.round === round) this.round = null;
          return this.take(link, ladder, this.lastLoss || "network");
        } catch (error) {
          failure = toError(error);
          this.lastLoss ||= failure.code;
          if (failure.code === "timeout") this.distrust(name);
          if (signal.aborted || failure.code === "unauthorized") break;
        }
      }
    } catch (error) {
      failure = toError(error);
    }
    if (signal.aborted || this.closed) return;
    this.round = null;
    const delay = this.deviceOffline ? OFFLINE_RETRY : this.delays.next();
    this.tell({ connection: "offline", transport: null, error: failure, retryAt: this.platform.now() + delay });
    this.cancelRetry = this.platform.timer(() => void this.connect(), delay);
  }

  /** Let a transport come last for a while: what was silent, or broke at once, would cost time again. */
  private distrust(name: TransportName): void {
    this.standBack.set(name, this.platform.now() + STAND_BACK);
  }

  private inOrder(ladder: readonly TransportName[]): TransportName[] {
    const now = this.platform.now();
    const isBack = (name: TransportName) => (this.standBack.get(name) ?? 0) > now;
    return [...ladder.filter((name) => !isBack(name)), ...ladder.filter(isBack)];
  }

  /** Open a link and make it whole. `quiet`: beside another one that is whole. */
  private async open(name: TransportName, about: View, signal: AbortSignal, quiet: boolean, again = false): Promise<Link> {
    const { options } = this;
    const transport = this.transports.get(name) as Transport;
    const link = new Link(name, this);
    try {
      const token = (link.token = await options.tokens.get());
      link.asked = about.asked;
      const urls = Object.fromEntries(about.transports.map((offer) => [offer.name, offer.url]));
      const context = { url: options.url, urls, token, keepalive: about.keepalive, bound: this.bound, fetch: options.fetch };
      await link.open(transport, context, signal);
      if (!quiet && this.status.connection !== "catching_up") this.tell({ connection: "catching_up", transport: name, retryAt: null });
      const rooms = about.rooms.filter((room) => !room.error);
      // Known before the first event may come.
      options.heard(rooms, about.rooms.filter((room) => room.error));
      const after = quiet ? (this.inbox.received ?? about.position) : await this.catchUp(rooms, about, signal);
      await link.subscribe(rooms, after, this.bound);
      return link;
    } catch (error) {
      link.close();
      if (toError(error).code === "unauthorized") {
        options.tokens.refuse(link.token);
        if (!again && !signal.aborted && (await options.tokens.get()) !== link.token) return this.open(name, about, signal, quiet, true);
      }
      throw error;
    }
  }

  /** Fetch what was missed, up to the head of that time; the position to subscribe from. */
  private async catchUp(rooms: readonly RoomDescription[], about: Description, signal: AbortSignal): Promise<string> {
    const { inbox, http } = this;
    const names = rooms.map(({ room }) => room);
    let after = inbox.received ?? this.options.from;
    if (after === "now") {
      inbox.moved(about.position);
      return about.position;
    }
    while (!reaches(after, about.position) && names.length) {
      let page;
      try {
        page = await http.history(names, after, PAGE, Math.max(30_000, this.bound), signal);
      } catch (error) {
        if (toError(error).code !== "invalid_position") throw error;
        inbox.gap(about.position, "epoch"); // ahead of the log: it was put back to an older state
        return about.position;
      }
      if (!page.complete) inbox.gap(null, parsePosition(after)?.epoch === about.epoch ? "expired" : "epoch");
      for (const event of page.events) {
        this.received();
        inbox.event(event);
      }
      inbox.moved(page.position);
      if (page.position === after) break; // nothing more, whatever the head says
      after = page.position;
      await bounded(this.platform, 2 ** 31 - 1, inbox.room(), signal);
    }
    return after;
  }

  /** A link is whole: it takes over. */
  private take(link: Link, ladder: readonly TransportName[], reason: string): void {
    if (!link.isOpen) return void (this.active ?? this.again()); // it ended in this very moment
    const now = this.platform.now();
    const previous = this.active;
    for (const cancel of [this.cancelRetry, this.cancelForward, this.cancelStable]) cancel();
    this.active = link;
    link.wholeSince = now;
    previous?.close();
    const best = ladder[0] === link.name;
    const changed = this.lastName && this.lastName !== link.name;
    this.tell({
      connection: best ? "live" : "degraded", transport: link.name, error: null, retryAt: null,
      ...(changed ? { failovers: this.status.failovers + 1, lastFailover: { at: now, from: this.lastName as TransportName, to: link.name, reason } } : {}),
    });
    this.lastName = link.name;
    this.lastLoss = "";
    this.cancelStable = this.platform.timer(() => this.stable(best), STABLE);
    if (!best) this.planForward(FORWARD_FIRST);
    this.options.connected();
    this.roomsChanged();
  }

  private stable(best: boolean): void {
    this.delays.reset();
    if (best) this.forwardDelays.reset();
  }

  // --- coming forward

  private get degraded(): boolean {
    return this.status.connection === "degraded";
  }

  private planForward(delay: number): void {
    this.cancelForward();
    this.cancelForward = this.platform.timer(() => void this.forward(null, "better"), delay);
  }

  /**
   * Open another link beside the active one, and let it take over.
   *
   * @param names which transports; null: those better than the active one
   * @returns whether one did
   */
  private async forward(names: readonly TransportName[] | null, reason: string): Promise<boolean> {
    const link = this.active;
    if (!link || this.candidate || this.closed) return false;
    const candidate = (this.candidate = new AbortController());
    const { signal } = candidate;
    try {
      const about = await this.describe(signal);
      const ladder = await this.usable(about);
      const at = ladder.indexOf(link.name);
      for (const name of names ?? (at < 0 ? ladder : ladder.slice(0, at))) {
        const next = await this.open(name, about, signal, true).catch(() => null);
        if (signal.aborted) {
          next?.close();
          return false;
        }
        if (!next) continue;
        this.candidate = null;
        this.take(next, ladder, reason);
        return true;
      }
      if (!names && at === 0) this.tell({ connection: "live" }); // what was better is not on offer any more
    } catch {
      // Not now, then; the active link is as good as before.
    } finally {
      if (this.candidate === candidate) this.candidate = null;
    }
    if (!signal.aborted && this.degraded) this.planForward(this.forwardDelays.next());
    return false;
  }

  /** A link that cannot be pinged, after a change of network. */
  private async reopen(link: Link): Promise<void> {
    if (this.candidate) return;
    const done = await this.forward([link.name], "changed");
    if (!done && this.active === link && link.isOpen) link.down(new GaplessError("timeout", "it could not be opened anew", { retryable: true }));
  }

  // --- rooms

  private async applyRooms(link: Link): Promise<void> {
    this.applying = true;
    try {
      for (;;) {
        // Let all of a moment's changes come together.
        await new Promise<void>((resolve) => this.platform.timer(resolve, 0));
        const wanted = this.options.rooms();
        if (this.active !== link || sameRooms(wanted, link.asked)) return;
        const about = await this.describe(new AbortController().signal);
        if (this.active !== link) return;
        const ladder = await this.usable(about);
        if (!ladder.includes(link.name)) {
          if (!(await this.forward(ladder, "rooms")) && this.active === link) throw new GaplessError("no_transport", "no transport carries these rooms", { retryable: true });
          return;
        }
        const rooms = about.rooms.filter((room) => !room.error);
        this.options.heard(rooms, about.rooms.filter((room) => room.error));
        link.asked = about.asked;
        await link.subscribe(rooms, this.inbox.received ?? about.position, this.bound);
        this.options.connected();
        if (ladder[0] === link.name && this.degraded) this.tell({ connection: "live" });
      }
    } catch (error) {
      if (this.active === link) link.down(toError(error));
    } finally {
      this.applying = false;
      if (this.active && this.active !== link) this.roomsChanged();
    }
  }

  // --- what is on offer

  private async describe(signal: AbortSignal): Promise<View> {
    const asked = this.options.rooms();
    const began = this.platform.now();
    const about = await this.http.describe(asked, this.bound, signal);
    this.measured(this.platform.now() - began);
    return { ...about, asked };
  }

  /** The ladder without what cannot be used: not loaded, not on offer, or not carrying a room whole. */
  private async usable(about: Description): Promise<TransportName[]> {
    const offered = new Set(about.transports.map(({ name }) => name));
    const usable: TransportName[] = [];
    for (const name of this.options.ladder) {
      if (!OFFERS[name].some((offer) => offered.has(offer))) continue;
      if (name === "mqtt" && about.rooms.some((room) => room.mqtt === false && !room.room_filter && !room.error)) continue;
      if (!this.transports.has(name)) this.transports.set(name, await this.load(name));
      if (this.transports.get(name)) usable.push(name);
    }
    return usable;
  }

  private async load(name: TransportName): Promise<Transport | null> {
    try {
      return (await this.options.loaders(name)) ?? null;
    } catch {
      return null; // its library is not installed
    }
  }

  private measured(ms: number): void {
    this.latency.add(ms);
    this.tell({ latency: Math.round(this.latency.value ?? ms) });
  }

  private get bound(): number {
    return openBound(this.latency.value, this.bounds.open);
  }

  private get status(): Status {
    return this.options.status.getSnapshot();
  }

  private tell(changes: Partial<Status>): void {
    if (this.closed && changes.connection !== "closed") return;
    // `offline` stays through later rounds; only an open transport, a device or a person ends it.
    patch(this.options.status, changes);
  }
}

function sameRooms(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((room) => other.includes(room));
}
