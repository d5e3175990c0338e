/** The public types. What the client does is written in docs/client-protocol.md. */
import type { GaplessError } from "./errors.ts";

/** A transport by name; `mqtt` is TCP or WebSocket, whichever the platform can. */
export type TransportName = "socketio" | "mqtt" | "sse" | "poll";

/** Event types and their data, for typed handlers: `createClient<{ "lead:updated": { name: string } }>(…)`. */
export type EventMap = Record<string, unknown>;

/** The event types that a map names. */
export type EventType<Events> = keyof Events & string;

/** One event, as a handler gets it. */
export interface RealtimeEvent<Data = unknown> {
  /** Unique; publishing it again is no second event. */
  readonly id: string;
  /** Such as `lead:updated`; `message` for topics outside the gateway's map. */
  readonly type: string;
  /** The MQTT topic name. */
  readonly topic: string;
  /** The data, with what the topic names (`leadId`) added; a `Uint8Array` where it is binary. */
  readonly data: Data;
  /** When it happened, by its publisher: RFC 3339 UTC, milliseconds. */
  readonly time: string;
  /** Who caused it. */
  readonly userId: string | null;
  /** Its place in the log, `epoch:offset`; null for ephemeral events. */
  readonly position: string | null;
}

/**
 * Handles an event. The cursor moves once it has returned, or its promise is settled; the next event waits for it.
 * One that throws is reported as the client's `error` event, and its event counts as handled.
 */
export type Handler<Data = unknown> = (data: Data, event: RealtimeEvent<Data>) => void | PromiseLike<void>;

/** Ends what it came from; calling it again does nothing. */
export type Unsubscribe = () => void;

/** A value that changes: fit for `useSyncExternalStore`. Snapshots are immutable, and the same until a change. */
export interface Observable<Value> {
  getSnapshot(): Value;
  /** Call `listener` after each change, until the returned function is called. */
  subscribe(listener: () => void): Unsubscribe;
}

/** See "State" in docs/client-protocol.md. */
export type ConnectionState = "connecting" | "catching_up" | "live" | "degraded" | "offline" | "closed";

/** A change from one transport to another. */
export interface Failover {
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
  readonly from: TransportName;
  readonly to: TransportName;
  /** Why: the code of the error that ended the old one, or `better`. */
  readonly reason: string;
}

/** How the client is connected: one immutable value, replaced at each change. */
export interface Status {
  readonly connection: ConnectionState;
  readonly transport: TransportName | null;
  /** Smoothed round trip in milliseconds; null before it was measured. */
  readonly latency: number | null;
  /** When the last event was received: milliseconds since the Unix epoch, or null. */
  readonly lastEventAt: number | null;
  /** Publications that have no answer yet. */
  readonly queueLength: number;
  /** Changes from one transport to another since the start. */
  readonly failovers: number;
  readonly lastFailover: Failover | null;
  /** Why it is not connected now. */
  readonly error: GaplessError | null;
  /** When the next attempt begins, where one waits: milliseconds since the Unix epoch. */
  readonly retryAt: number | null;
}

/** Events that existed and are gone: the application must load its state anew. Events after it come as ever. */
export interface Gap {
  /** The last position before the hole; null where none was known. */
  readonly after: string | null;
  /** Where the client goes on; null where that is not known yet. */
  readonly position: string | null;
  /** `expired`: older than what the log keeps; `epoch`: the log was lost or replaced. */
  readonly reason: "expired" | "epoch";
}

/** What became of a publication that was left over from an earlier life of the client. */
export interface Sent {
  readonly id: string;
  /** Where it succeeded. */
  readonly published: Published | null;
  /** Where it did not. */
  readonly error: GaplessError | null;
}

/** What the client tells beside events. */
export interface ClientEvents {
  gap: Gap;
  /** An error that belongs to no call; `room` names the room it concerns, if it concerns one. */
  error: { readonly error: GaplessError; readonly room: string | null };
  sent: Sent;
}

/** Something to publish. Of `type` and `topic` one is needed. */
export interface Publication<Data = unknown> {
  /** Event type; the gateway makes the topic of it and the data. */
  type?: string;
  /** MQTT topic, in place of the type or besides it. */
  topic?: string;
  /** Any JSON value; a `Uint8Array` for binary data. */
  data?: Data;
  /** Up to 128 characters; made by the client where it is absent. The same id again is no second event. */
  id?: string;
  /** RFC 3339; by default the moment of the call. */
  time?: string;
  qos?: 0 | 1 | 2;
  retain?: boolean;
  /** Seconds after which it is not delivered any more. */
  expiresIn?: number;
  /** At most once, never kept: for cursors and typing. Refused (`offline`) without a connection. */
  ephemeral?: boolean;
}

/** How the gateway answered a publication. */
export interface Published {
  readonly id: string;
  readonly topic: string;
  readonly type: string;
  /** Null for ephemeral events. */
  readonly position: string | null;
  /** It was in the log already. */
  readonly duplicate: boolean;
}

/** A room. It is joined with its first handler, and left with its last. */
export interface Room<Events extends object = EventMap> {
  readonly name: string;
  /** Handle events of one type, or of all (`*`), until the returned function is called. */
  on<Type extends EventType<Events>>(type: Type, handler: Handler<Events[Type]>): Unsubscribe;
  on(type: "*", handler: Handler): Unsubscribe;
  /**
   * Wait until the room is heard.
   *
   * @throws GaplessError `forbidden`, `unknown_room`: the gateway refuses it; `closed`.
   */
  ready(): Promise<void>;
}

/** Somebody in a room; see docs/presence.md. */
export interface PresenceMember {
  readonly userId: string;
  /** Their connections there; 0 where the last one is just gone and they may come back. */
  readonly connections?: number;
  /** When the first of them came: RFC 3339; absent where the gateway told only of a change. */
  readonly since?: string;
  /** When the last one went. */
  readonly lastSeen?: string;
}

/**
 * Who is in a room, by users that the gateway knows. While it has subscribers it is kept up to date: told at once over
 * Socket.IO, asked for every 15 s over other transports.
 */
export interface Presence extends Observable<readonly PresenceMember[]> {
  readonly room: string;
}

/** A hybrid client. It connects by itself once a room has a handler, something is published, or presence is watched. */
export interface Client<Events extends object = EventMap> {
  /** How it is connected. */
  readonly status: Observable<Status>;
  /** A room by name (`lead:123`); the same object for the same name. */
  room(name: string): Room<Events>;
  /**
   * Publish an event. It is kept on disk until the gateway has it, and sent once, in order.
   *
   * @returns once the event is in the gateway's log (an ephemeral one: once it was handed on).
   * @throws GaplessError what the gateway says (`payload_too_large`, `forbidden`, …), `outbox_full`, `closed`.
   */
  publish<Type extends EventType<Events>>(type: Type, data: Events[Type], options?: Omit<Publication, "type" | "data">): Promise<Published>;
  publish(publication: Publication): Promise<Published>;
  /** Who is in a room; the same object for the same name. */
  presence(room: string): Presence;
  /** Hear of gaps, errors that belong to no call, and leftovers that were sent. */
  on<Name extends keyof ClientEvents>(name: Name, listener: (about: ClientEvents[Name]) => void): Unsubscribe;
  /** Connect anew, now: for a button. */
  reconnect(): void;
  /** End. What is in the outbox stays there for the next client; what was asked for is refused (`closed`). */
  close(): Promise<void>;
}

/** A place for small texts: Web Storage, React Native's AsyncStorage and a `Map` with these names fit. */
export interface TextStorage {
  getItem(key: string): string | null | PromiseLike<string | null>;
  setItem(key: string, value: string): void | PromiseLike<void>;
  removeItem(key: string): void | PromiseLike<void>;
}

/** A publication in the outbox. */
export interface OutboxEntry {
  /** Its key: the event's id. */
  readonly id: string;
  /** Its place: entries are sent by rising numbers. */
  readonly seq: number;
  /** The body that is sent, JSON. */
  readonly body: string;
}

/** Where publications wait. Each promise settles once the change is kept. */
export interface OutboxStore {
  /** All entries, by rising `seq`. */
  load(): Promise<OutboxEntry[]>;
  add(entry: OutboxEntry): Promise<void>;
  remove(ids: readonly string[]): Promise<void>;
  close?(): void | Promise<void>;
}

export type Profile = "mobile" | "desktop" | "server";

/** The device's word on its network and the application's visibility. */
export type DeviceSignal = "offline" | "online" | "changed" | "hidden" | "visible" | "shutdown";

/** What the client takes from its surroundings; each part may be replaced, as React Native and tests do. */
export interface Platform {
  readonly profile: Profile;
  readonly fetch: typeof fetch;
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Evenly from 0 up to 1. */
  random(): number;
  /** @returns a function that cancels it. */
  timer(callback: () => void, ms: number): () => void;
  /** @returns a function that ends it. */
  listen(listener: (signal: DeviceSignal) => void): Unsubscribe;
  readonly storage: TextStorage;
  /** What one tab keeps over its reloads, where there are tabs. */
  readonly tabStorage?: TextStorage | undefined;
  /** Opens the outbox of a name. */
  outbox(name: string): OutboxStore | PromiseLike<OutboxStore>;
}

/**
 * The longest that the client waits for each, in milliseconds, whatever it has measured; see "Bounds" in
 * docs/client-protocol.md. Shorter than the network now and then takes, they cost needless connections.
 */
export interface Bounds {
  /** To open a transport, and for each answer on the way to being whole. */
  open?: number;
  /** Without a sign of life, before the connection is checked. */
  silence?: number;
  /** For the answer to a check, before the connection counts as lost. */
  check?: number;
}

/** Settings of a client; all but `url` have defaults. */
export interface ClientOptions {
  /** The gateway: `https://events.example.com`. */
  url: string;
  /** The token, or how to get one: asked again before it ends. */
  token?: string | (() => string | null | PromiseLike<string | null>);
  /** Whose cursor and outbox these are; by default the `sub` of the token, else `anonymous`. */
  user?: string;
  /** The ladder; by default that of the platform's profile. */
  transports?: readonly TransportName[];
  /** Where a client without a stored cursor begins: `now` (default), `start`, or a position. */
  from?: string;
  /** In Node: a folder that keeps cursor and outbox over restarts, of one process at a time; by default memory. */
  folder?: string;
  /** Whether tabs of a browser share one connection; by default where Web Locks and BroadcastChannel exist. */
  tabs?: boolean;
  /** Bounds of the outbox; by default 1,000 events and 4 MiB. */
  outbox?: { maxEvents?: number; maxBytes?: number };
  /** Upper limits of what it waits for; by default what the latency and the rate of events suggest. */
  bounds?: Bounds;
  /** Parts of the platform to replace. */
  platform?: Partial<Platform>;
}
