/** The client: rooms, publishing, status; put together from its parts. */
import { Connector } from "./connector.ts";
import { GaplessError, fromWire, toError } from "./errors.ts";
import { Gateway } from "./gateway.ts";
import { Inbox } from "./inbox.ts";
import { patch, Store } from "./observable.ts";
import { encode, Outbox, storageFailed } from "./outbox.ts";
import { defaultPlatform } from "./platform/index.ts";
import { parsePosition } from "./position.ts";
import { PresenceRoom, type PresenceDoor } from "./presence.ts";
import { RoomHandlers } from "./room.ts";
import { type RoomDescription, RoomMatcher } from "./rooms.ts";
import { checkBounds, closed } from "./time.ts";
import type { Tabs } from "./tabs.ts";
import { claimsOf, Tokens } from "./tokens.ts";
import { loaders } from "./transports/index.ts";
import type { HttpDoor, Incoming, OpenContext, TransportLoaders } from "./transport.ts";
import type {
  Client, ClientEvents, ClientOptions, DeviceSignal, EventMap, Observable, Platform, Presence, Profile, Publication, Published,
  RealtimeEvent, Room, Status, TextStorage, TransportName, Unsubscribe,
} from "./types.ts";

const LADDERS: Record<Profile, readonly TransportName[]> = {
  mobile: ["mqtt", "socketio", "sse", "poll"],
  desktop: ["socketio", "mqtt", "sse", "poll"],
  server: ["socketio", "mqtt", "sse", "poll"],
};
const START: Status = {
  connection: "connecting", transport: null, latency: null, lastEventAt: null, queueLength: 0,
  failovers: 0, lastFailover: null, error: null, retryAt: null,
};

/** What tests replace; everybody else takes the defaults. */
export interface Seams {
  http?: HttpDoor;
  loaders?: TransportLoaders;
}

/**
 * A client of the gateway at `options.url`. It connects by itself once a room has a handler, something is
 * published, or presence is watched.
 *
 * @throws GaplessError `invalid_request`: the options are wrong.
 */
export function createClient<Events extends object = EventMap>(options: ClientOptions, seams: Seams = {}): Client<Events> {
  return new HybridClient(options, seams) as unknown as Client<Events>;
}

class HybridClient implements Client, PresenceDoor {
  readonly status: Observable<Status>;
  private readonly store = new Store<Status>(START);
  private readonly options: ClientOptions;
  private readonly platform: Platform;
  private readonly tokens: Tokens;
  private readonly http: HttpDoor;
  private readonly gateway: Gateway;
  private readonly inbox: Inbox;
  private readonly outbox: Outbox;
  private readonly connector: Connector;
  private readonly rooms = new Map<string, RoomHandlers>();
  private readonly presences = new Map<string, PresenceRoom>();
  private readonly listeners = new Map<keyof ClientEvents, Set<(about: never) => void>>();
  private readonly unlisten: Unsubscribe;
  private matcher = new RoomMatcher([]);
  private key = "";
  private started = false;
  private isClosed = false;
  private storageBroke = false;
  private loaders: TransportLoaders;
  private tabs: Tabs | null = null;

  constructor(options: ClientOptions, seams: Seams) {
    const url = checkUrl(options.url);
    const platform = (this.platform = { ...defaultPlatform(options), ...options.platform });
    this.options = options;
    this.loaders = seams.loaders ?? loaders;
    this.status = this.store;
    this.tokens = new Tokens(options.token, platform);
    this.gateway = new Gateway(url, platform, this.tokens);
    this.http = seams.http ?? this.gateway;
    this.inbox = new Inbox({
      handle: (event) => this.handle(event),
      gap: (gap) => this.emit("gap", gap),
      moved: (position) => this.keepCursor(position),
      taken: (item) => this.tabs?.tell(item),
    });
    this.outbox = new Outbox({
      http: this.http, platform, maxEvents: options.outbox?.maxEvents ?? 1000, maxBytes: options.outbox?.maxBytes ?? 4 << 20,
      changed: (queueLength) => patch(this.store, { queueLength }),
      sent: (about) => this.emit("sent", about),
      failed: (error) => this.storageFails(error),
    });
    const fetch: OpenContext["fetch"] = (path, signal) => this.gateway.fetch(path, signal);
    this.connector = new Connector({
      url, platform, fetch, http: this.http, inbox: this.inbox, tokens: this.tokens, status: this.store,
      ladder: options.transports ?? LADDERS[platform.profile],
      loaders: async (name) => this.loaders[name]?.(),
      from: options.from ?? "now",
      bounds: checkBounds(options.bounds),
      rooms: () => [...this.rooms.values()].filter((room) => room.isWanted).map(({ name }) => name),
      heard: (heard, refused) => this.heard(heard, refused),
      revoked: (names) => this.revoked(names),
      notice: (name, body) => this.notice(name, body),
      connected: () => this.whole(),
    });
    this.tokens.onRenewed = (token) => void this.connector.renewed(token);
    this.unlisten = platform.listen((signal) => this.signal(signal));
  }

  room(name: string): Room {
    let room = this.rooms.get(name);
    if (!room) {
      if (!name || /[\s,]/.test(name)) throw new GaplessError("invalid_request", `${JSON.stringify(name)} is no name of a room`, { hint: "such as lead:123" });
      const changed = () => {
        this.start();
        this.connector.roomsChanged();
      };
      const failed = (error: GaplessError) => this.emit("error", { error, room: name });
      this.rooms.set(name, (room = new RoomHandlers(name, changed, failed)));
      if (this.isClosed) room.refuse(closed());
    }
    return room;
  }

  publish(first: string | Publication, data?: unknown, more: Omit<Publication, "type" | "data"> = {}): Promise<Published> {
    const publication = typeof first === "string" ? { ...more, type: first, data } : first;
    this.start();
    return publication.ephemeral ? this.publishNow(publication) : this.outbox.add(publication);
  }

  private async publishNow(publication: Publication): Promise<Published> {
    if (this.isClosed) throw closed();
    if (!this.connector.link) throw new GaplessError("offline", "there is no connection, and an ephemeral event is not kept", { retryable: true });
    const { body } = encode({ qos: 0, ...publication }, this.platform);
    return (await this.http.publish([body], 10_000))[0] as Published;
  }

  presence(name: string): Presence {
    let presence = this.presences.get(name);
    if (!presence) this.presences.set(name, (presence = new PresenceRoom(name, this)));
    return presence;
  }

  on<Name extends keyof ClientEvents>(name: Name, listener: (about: ClientEvents[Name]) => void): Unsubscribe {
    const listeners = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, listeners);
    const own = (about: ClientEvents[Name]) => listener(about);
    listeners.add(own as (about: never) => void);
    return () => void listeners.delete(own as (about: never) => void);
  }

  reconnect(): void {
    this.start();
    if (this.key) this.connector.reconnect();
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.unlisten();
    this.tokens.close();
    this.inbox.close();
    this.connector.close();
    this.outbox.close();
    this.tabs?.close();
    for (const room of this.rooms.values()) room.refuse(closed());
    if (!this.started) patch(this.store, { connection: "closed" });
  }

  // --- start: whose cursor and outbox, then connect

  /** In a moment, so that all rooms of a page's first step are resumed together. */
  private start(): void {
    if (this.started || this.isClosed) return;
    this.started = true;
    this.platform.timer(() => void this.begin(), 0);
  }

  private async begin(): Promise<void> {
    const { options, platform } = this;
    let user = options.user;
    while (user === undefined && !this.isClosed) {
      try {
        const { sub } = claimsOf(await this.tokens.get());
        user = typeof sub === "string" ? sub : "anonymous";
      } catch (cause) {
        const error = toError(cause, "token_failed");
        patch(this.store, { connection: "offline", error });
        await new Promise<void>((resolve) => platform.timer(resolve, 1000 + 9000 * platform.random()));
      }
    }
    if (this.isClosed) return;
    this.key = `gapless:${this.gateway.url}:${user}`;
    try {
      const cursor = platform.tabStorage?.getItem(this.key) ?? (await platform.storage.getItem(`${this.key}:cursor`));
      if (typeof cursor === "string" && parsePosition(cursor)) this.inbox.begin(cursor);
    } catch (error) {
      this.storageFails(storageFailed(error));
    }
    await this.share();
    if (this.isClosed) return;
    this.connector.start();
    try {
      this.outbox.open(await platform.outbox(this.key));
    } catch (error) {
      this.storageFails(storageFailed(error));
    }
    if (this.tabs?.leads !== false) await this.outbox.adopt();
    this.outbox.start();
  }

  /** Share the connection with other tabs, where this is a tab. */
  private async share(): Promise<void> {
    const { document, navigator, BroadcastChannel: channel } = globalThis as Partial<typeof globalThis>;
    if (!(this.options.tabs ?? true) || !document || !navigator?.locks || !channel) return;
    const { Tabs } = await import("./tabs.ts");
    if (this.isClosed) return;
    const { platform, http, connector } = this;
    const transport = () => connector.link?.name ?? null;
    this.tabs = new Tabs(this.key, {
      platform, http, transport,
      join: (name) => {
        const leave = this.room(name).on("*", () => {});
        return { ready: this.room(name).ready(), leave };
      },
      poke: () => connector.link ?? connector.reconnect(),
      leading: () => void this.outbox.adopt(),
    });
    const alone = this.loaders;
    this.loaders = this.tabs.wrap(alone);
    let before: TransportName | null = null;
    this.store.subscribe(() => {
      if (before !== transport()) this.tabs?.changed((before = transport()));
    });
    try {
      await this.tabs.start();
    } catch {
      // Locks are forbidden here: each tab for itself.
      this.tabs.close();
      this.tabs = null;
      this.loaders = alone;
    }
  }

  // --- events

  private handle(incoming: Incoming): void | Promise<void> {
    const { data: raw, topic } = incoming;
    const data = isPlain(raw) ? { ...this.matcher.captures(topic), ...raw } : raw;
    const event: RealtimeEvent = { ...incoming, data };
    let waits: Promise<void>[] | null = null;
    for (const name of this.matcher.roomsOf(topic, raw)) {
      const done = this.rooms.get(name)?.handle(event);
      if (done) (waits ??= []).push(done);
    }
    if (waits) return Promise.all(waits).then(() => {});
  }

  private heard(heard: readonly RoomDescription[], refused: readonly RoomDescription[]): void {
    this.matcher = new RoomMatcher(heard);
    for (const { room, error } of refused) {
      if (error && this.rooms.get(room)?.refuse(fromWire(error))) this.emit("error", { error: fromWire(error), room });
    }
    this.hearing = heard.map(({ room }) => room);
  }

  private hearing: string[] = [];

  private whole(): void {
    for (const name of this.hearing) this.rooms.get(name)?.joined();
    this.outbox.wake();
    for (const presence of this.presences.values()) presence.connected();
  }

  private revoked(names: readonly string[]): void {
    const error = new GaplessError("forbidden", "the right to hear this room has ended");
    for (const room of names) if (this.rooms.get(room)?.refuse(error)) this.emit("error", { error, room });
  }

  private notice(name: string, body: unknown): void {
    for (const presence of this.presences.values()) presence.notice(name, body);
  }

  // --- presence asks through the live link

  request(name: string, body: object): Promise<unknown> | null {
    this.start();
    return this.connector.link?.session?.request?.(name, body) ?? null;
  }

  async fetchJson(path: string): Promise<unknown> {
    return (await this.gateway.fetch(path)).json();
  }

  timer(callback: () => void, ms: number): Unsubscribe {
    return this.platform.timer(callback, ms);
  }

  // --- surroundings

  private signal(signal: DeviceSignal): void {
    this.connector.signal(signal);
    if (signal === "online" || signal === "visible") this.outbox.wake();
  }

  private unkept: string | null = null;

  /** At the end of this step: a page of 500 events is one write, and no reload comes between. */
  private keepCursor(position: string): void {
    if (this.unkept === null) queueMicrotask(() => this.writeCursor());
    this.unkept = position;
  }

  private writeCursor(): void {
    const position = this.unkept as string;
    this.unkept = null;
    const { storage, tabStorage } = this.platform;
    this.keep(tabStorage, this.key, position);
    // Of several tabs the leading one keeps the user's.
    if (this.tabs?.leads !== false) this.keep(storage, `${this.key}:cursor`, position);
  }

  private keep(storage: TextStorage | undefined, key: string, text: string): void {
    const failed = (error: unknown) => this.storageFails(storageFailed(error));
    try {
      storage?.setItem(key, text)?.then(undefined, failed);
    } catch (error) {
      failed(error);
    }
  }

  private storageFails(error: GaplessError): void {
    if (this.storageBroke) return;
    this.storageBroke = true;
    this.emit("error", { error, room: null });
  }

  private emit<Name extends keyof ClientEvents>(name: Name, about: ClientEvents[Name]): void {
    for (const listener of [...(this.listeners.get(name) ?? [])] as ((about: ClientEvents[Name]) => void)[]) {
      try {
        listener(about);
      } catch (error) {
        this.platform.timer(() => { throw error; }, 0); // the application's, as if nobody had called it
      }
    }
  }
}

function checkUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text, (globalThis as { location?: { href: string } }).location?.href);
  } catch (cause) {
    throw new GaplessError("invalid_request", `${JSON.stringify(text)} is no URL`, { hint: "such as https://events.example.com", cause });
  }
  if (!/^https?:$/.test(url.protocol)) throw new GaplessError("invalid_request", `${url.protocol} is not http: or https:`);
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

function isPlain(data: unknown): data is Record<string, unknown> {
  return typeof data === "object" && data !== null && !Array.isArray(data) && !(data instanceof Uint8Array);
}
