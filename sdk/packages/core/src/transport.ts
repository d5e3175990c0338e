/** The seam between the client and its transports, and between it and the gateway's HTTP doors. */
import type { GaplessError } from "./errors.ts";
import type { RoomDescription } from "./rooms.ts";
import type { Published, TransportName } from "./types.ts";

/** An event as a transport hands it over: without what the topic names. */
export interface Incoming {
  readonly id: string;
  readonly type: string;
  readonly topic: string;
  readonly data: unknown;
  readonly time: string;
  readonly userId: string | null;
  readonly position: string | null;
}

/** What a transport tells while its connection lasts, in the order of arrival. */
export interface Sink {
  event(event: Incoming): void;
  /** Everything of the rooms up to this position was told. */
  moved(position: string): void;
  /** Events between what was subscribed from and here are gone. */
  gap(position: string | null): void;
  /** Something arrived. */
  alive(): void;
  /** These rooms may be heard no more. */
  revoked(rooms: readonly string[]): void;
  /** Something of another kind, such as `gapless:presence`. */
  notice(name: string, body: unknown): void;
  /** The connection ended; nothing follows. */
  down(error: GaplessError): void;
}

/** An open connection. */
export interface Session {
  /** Milliseconds after which a sign of life is due, however little there is to tell. */
  readonly heartbeat: number;
  /** Hear exactly these rooms. The first call names the position to begin after; rooms added later may begin now. */
  subscribe(rooms: readonly RoomDescription[], after: string): Promise<void>;
  /** Resolves once the other side has answered; absent where the transport cannot ask. */
  ping?(): Promise<void>;
  /** Go on with a fresh token; absent where that takes a new connection. */
  renew?(token: string | null): Promise<void>;
  /** Ask the gateway something (Socket.IO's requests); absent where the transport has no questions. */
  request?(name: string, body: object): Promise<unknown>;
  /** End it; `down` is not called. */
  close(): void;
}

/** What a transport needs to open. */
export interface OpenContext {
  /** The gateway's URL, without a slash at the end. */
  readonly url: string;
  /** The gateway's word on this transport's URLs. */
  readonly urls: Readonly<Record<string, string>>;
  readonly token: string | null;
  readonly keepalive: Keepalive;
  /** Bound of opening, in milliseconds. */
  readonly bound: number;
  /** A request to the gateway with the token; rejects for any answer but 200. */
  fetch(path: string, signal: AbortSignal): Promise<Response>;
}

/** Opens a connection; rejects with the reason. `sink` may be called as soon as the session is given out. */
export type Transport = (context: OpenContext, sink: Sink, signal: AbortSignal) => Promise<Session>;

/** Loads transports when they are used. */
export type TransportLoaders = Partial<Record<TransportName, () => Promise<Transport>>>;

export interface Keepalive {
  readonly mqtt_seconds: number;
  readonly sse_heartbeat_seconds: number;
  readonly poll_max_wait_seconds: number;
}

/** The answer of `/api/connect`. */
export interface Description {
  readonly epoch: string;
  /** The head of the log. */
  readonly position: string;
  readonly transports: readonly { readonly name: string; readonly url: string }[];
  readonly rooms: readonly RoomDescription[];
  readonly keepalive: Keepalive;
}

/** A page of history. */
export interface HistoryPage {
  readonly position: string;
  readonly complete: boolean;
  readonly events: readonly Incoming[];
}

/** The gateway's HTTP doors. Every call is bounded, and rejects with a `GaplessError`. */
export interface HttpDoor {
  describe(rooms: readonly string[], bound: number, signal?: AbortSignal): Promise<Description>;
  history(rooms: readonly string[], after: string, limit: number, bound: number, signal?: AbortSignal): Promise<HistoryPage>;
  /** Publish bodies as one array: all or nothing. */
  publish(bodies: readonly string[], bound: number): Promise<Published[]>;
}
