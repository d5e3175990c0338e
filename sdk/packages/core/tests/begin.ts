/** A client with a fake clock before a fake gateway, and what it told. */
import { createClient } from "../src/client.ts";
import { memoryOutbox, memoryStorage } from "../src/platform/memory.ts";
import type { Client, ClientOptions, Platform, Sent } from "../src/types.ts";
import { FakeClock } from "./clock.ts";
import { FakeGateway } from "./fake-gateway.ts";

export interface Told {
  client: Client;
  clock: FakeClock;
  gateway: FakeGateway;
  /** Ids of the events that the handler of `lead:1` got. */
  heard: string[];
  errors: string[];
  sent: Sent[];
  states: string[];
}

export function begin(options: Partial<ClientOptions> = {}, gateway = new FakeGateway(), clock = new FakeClock()): Told {
  const platform: Partial<Platform> = {
    profile: "desktop", now: clock.now, timer: clock.timer, random: () => 0.5, storage: memoryStorage(), outbox: () => memoryOutbox(),
    listen: () => () => {}, ...options.platform,
  };
  const client = createClient({ url: "http://gateway.test", ...options, platform }, { http: gateway, loaders: gateway.loaders });
  const told: Told = { client, clock, gateway, heard: [], errors: [], sent: [], states: [] };
  client.on("error", ({ error, room }) => told.errors.push(room ? `${error.code} ${room}` : error.code));
  client.on("sent", (about) => told.sent.push(about));
  client.status.subscribe(() => {
    const { connection } = client.status.getSnapshot();
    if (told.states.at(-1) !== connection) told.states.push(connection);
  });
  client.room("lead:1").on("*", (_, { id }) => void told.heard.push(id));
  return told;
}

/** A JWT of these claims; its signature is nobody's. */
export function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part(claims)}.none`;
}
