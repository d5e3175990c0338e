/** Hybrid realtime client for Gapless. */
export { createClient } from "./client.ts";
export { GaplessError, type ClientErrorCode } from "./errors.ts";
export type {
  Bounds, Client, ClientEvents, ClientOptions, ConnectionState, DeviceSignal, EventMap, EventType, Failover, Gap, Handler,
  Observable, OutboxEntry, OutboxStore, Platform, Presence, PresenceMember, Profile, Publication, Published, RealtimeEvent, Room, Sent, Status,
  TextStorage, TransportName, Unsubscribe,
} from "./types.ts";
