/** The histories of wire/client, which every language's client must live through alike. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { createClient } from "../src/client.ts";
import type { GaplessError } from "../src/errors.ts";
import { memoryOutbox, memoryStorage } from "../src/platform/memory.ts";
import type { Client, DeviceSignal, TransportName, Unsubscribe } from "../src/types.ts";
import { FakeClock, settle } from "./clock.ts";
import { type Condition, type Door, type Entry, eventOf, FakeGateway } from "./fake-gateway.ts";

const FOLDER = new URL("../../../../wire/client/", import.meta.url);
const KEY = "gapless:http://gateway.test:anonymous";

interface Expectation {
  state?: string;
  transport?: string | null;
  failovers?: number;
  queue?: number;
  reason?: string | null;
  error?: string | null;
  delivered?: string[];
  published?: string[];
  answers?: Record<string, string>;
  errors?: string[];
  cursor?: string | null;
  open?: string[];
  attempts?: Record<string, number>;
}

type Step = Record<string, unknown>;

interface History {
  about: string;
  ladder?: TransportName[];
  rooms?: string[];
  random?: number;
  gateway?: { epoch?: string; log?: Entry[]; incomplete_over_mqtt?: string[]; room_filters?: boolean };
  stored?: { cursor?: string; outbox?: string[] };
  conditions?: Partial<Record<Door, Condition>>;
  steps: Step[];
}

class Player {
  private readonly clock = new FakeClock();
  private readonly storage = memoryStorage();
  private readonly outbox = memoryOutbox();
  private readonly gateway: FakeGateway;
  private readonly history: History;
  private readonly rooms: Set<string>;
  private readonly leave = new Map<string, Unsubscribe>();
  private client!: Client;
  private device: (signal: DeviceSignal) => void = () => {};
  private holding: (() => void)[] | null = null;
  private delivered: string[] = [];
  private answers: Record<string, string> = {};
  private errors: string[] = [];

  constructor(history: History) {
    this.history = history;
    const { epoch, log, incomplete_over_mqtt, room_filters } = history.gateway ?? {};
    this.gateway = new FakeGateway(epoch, log, incomplete_over_mqtt, room_filters);
    for (const [door, condition] of Object.entries(history.conditions ?? {})) this.gateway.set(door as Door, condition);
    this.rooms = new Set(history.rooms ?? ["lead:1"]);
    const { cursor, outbox = [] } = history.stored ?? {};
    if (cursor) void this.storage.setItem(`${KEY}:cursor`, cursor);
    for (const [seq, id] of outbox.entries()) void this.outbox.add({ id, seq, body: JSON.stringify({ id, type: "lead:updated" }) });
  }

  async play(): Promise<void> {
    this.begin();
    for (const [index, step] of this.history.steps.entries()) {
      const [name, value] = Object.entries(step)[0] as [string, unknown];
      try {
        await this.step(name, value);
        await settle();
      } catch (error) {
        if (error instanceof Error) error.message = `step ${index} ${JSON.stringify(step)}: ${error.message}`;
        throw error;
      }
    }
    await this.client.close();
    await settle();
    assert.deepEqual(this.gateway.open, [], "connections stay open after close()");
    assert.equal(this.clock.pending, 0, "timers stay after close()");
  }

  private begin(): void {
    const { ladder, random = 0.5 } = this.history;
    this.client = createClient(
      {
        url: "http://gateway.test",
        ...(ladder ? { transports: ladder } : {}),
        platform: {
          profile: "desktop", now: this.clock.now, timer: this.clock.timer, random: () => random, storage: this.storage, outbox: () => this.outbox,
          listen: (listener) => {
            this.device = listener;
            return () => {};
          },
        },
      },
      { http: this.gateway, loaders: this.gateway.loaders },
    );
    this.client.on("gap", ({ reason }) => this.delivered.push(`gap:${reason}`));
    this.client.on("error", ({ error, room }) => this.errors.push(room ? `${error.code} ${room}` : error.code));
    this.client.on("sent", ({ id, error }) => (this.answers[id] = error?.code ?? "ok"));
    for (const room of this.rooms) this.join(room);
  }

  private join(room: string): void {
    const handler = (_: unknown, { id }: { id: string }) => {
      this.delivered.push(id);
      if (this.holding) return new Promise<void>((resolve) => this.holding?.push(resolve));
    };
    this.leave.set(room, this.client.room(room).on("*", handler));
  }

  private async step(name: string, value: unknown): Promise<void> {
    const { gateway, client } = this;
    switch (name) {
      case "log":
        for (const entry of value as Entry[]) gateway.append(entry);
        break;
      case "ephemeral":
        gateway.deliver(eventOf(value as string, null));
        break;
      case "repeat":
        gateway.deliver(gateway.find(value as string));
        break;
      case "set":
        for (const [door, condition] of Object.entries(value as Record<Door, Condition>)) gateway.set(door as Door, condition);
        break;
      case "cut":
        gateway.cut(value as TransportName[]);
        break;
      case "trim":
        gateway.oldest = (value as number) + 1;
        break;
      case "epoch":
        gateway.replace(value as string);
        break;
      case "heartbeat":
        gateway.heartbeat();
        break;
      case "advance":
        await this.clock.advance((value as number) * 1000);
        break;
      case "device":
        this.device(value as DeviceSignal);
        break;
      case "deny":
        for (const room of value as string[]) gateway.denied.add(room);
        break;
      case "allow":
        for (const room of value as string[]) gateway.denied.delete(room);
        break;
      case "join":
        this.rooms.add(value as string);
        this.join(value as string);
        break;
      case "leave":
        this.rooms.delete(value as string);
        this.leave.get(value as string)?.();
        break;
      case "publish":
        for (const id of value as string[]) {
          const told = client.publish({ id, type: "lead:updated", data: {} });
          told.then(() => (this.answers[id] = "ok"), (error: GaplessError) => error.code !== "closed" && (this.answers[id] = error.code));
        }
        break;
      case "reject":
        Object.assign(gateway.rejected, value);
        break;
      case "reconnect":
        client.reconnect();
        break;
      case "close":
        await client.close();
        break;
      case "restart":
        await client.close();
        this.holding = null;
        this.begin();
        break;
      case "hold":
        this.hold(value as boolean);
        break;
      case "expect":
        this.expect(value as Expectation);
        break;
      default:
        throw new Error(`there is no step ${name}`);
    }
  }

  private hold(on: boolean): void {
    const waiting = this.holding ?? [];
    this.holding = on ? [] : null;
    for (const resolve of waiting) resolve();
  }

  private expect(wanted: Expectation): void {
    const { connection, transport, failovers, queueLength, lastFailover, error } = this.client.status.getSnapshot();
    const found: Required<Expectation> = {
      state: connection, transport, failovers, queue: queueLength, reason: lastFailover?.reason ?? null, error: error?.code ?? null,
      delivered: this.delivered.map((id, index) => (wanted.delivered?.[index] === "gap" && id.startsWith("gap:") ? "gap" : id)),
      published: this.gateway.published, answers: this.answers, errors: this.errors,
      cursor: this.storage.getItem(`${KEY}:cursor`) as string | null, open: this.gateway.open, attempts: {},
    };
    for (const name of Object.keys(wanted.attempts ?? {})) found.attempts[name] = this.gateway.attempts[name as TransportName] ?? 0;
    const compared = Object.fromEntries(Object.keys(wanted).map((key) => [key, found[key as keyof Expectation]]));
    assert.deepEqual(compared, wanted.open ? { ...wanted, open: [...wanted.open].sort() } : wanted);
    if (wanted.delivered) this.delivered = [];
    if (wanted.published) this.gateway.published = [];
    if (wanted.answers) this.answers = {};
    if (wanted.errors) this.errors = [];
    if (wanted.attempts) for (const name of Object.keys(wanted.attempts)) delete this.gateway.attempts[name as TransportName];
  }
}

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".json"))) {
  const history = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) as History;
  test(`${file}: ${history.about}`, () => new Player(history).play());
}
