/** The fake gateway of wire/client/README.md. */
import { GaplessError } from "../src/errors.ts";
import type { RoomDescription } from "../src/rooms.ts";
import type { Description, HistoryPage, HttpDoor, Incoming, Session, Sink, Transport, TransportLoaders } from "../src/transport.ts";
import type { Published, TransportName } from "../src/types.ts";

export type Condition = "up" | "refuse" | "silent" | "unauthorized" | "absent";
export type Door = TransportName | "http";
export type Entry = string | { id: string; rooms: string[] };

const NAMES: readonly TransportName[] = ["socketio", "mqtt", "sse", "poll"];
const network = () => new GaplessError("network", "refused", { retryable: true });
const unauthorized = () => new GaplessError("unauthorized", "wrong token");

interface Connection {
  name: TransportName;
  sink: Sink;
  rooms: Set<string>;
  held: (() => void)[];
  pings: (() => void)[];
}

export class FakeGateway implements HttpDoor {
  readonly conditions: Record<Door, Condition> = { socketio: "up", mqtt: "up", sse: "up", poll: "up", http: "up" };
  readonly attempts: Partial<Record<TransportName, number>> = {};
  readonly denied = new Set<string>();
  /** What connections showed, and what those that live were given in its place. */
  readonly tokens: (string | null)[] = [];
  readonly renewed: (string | null)[] = [];
  /** Tokens that are refused. */
  readonly refused = new Set<string | null>();
  readonly rejected: Record<string, string> = {};
  readonly notOverMqtt: readonly string[];
  readonly roomFilters: boolean;
  published: string[] = [];
  epoch: string;
  oldest = 1;
  log: Incoming[] = [];
  private connections: Connection[] = [];
  private waiting: [Door, () => void][] = [];

  constructor(epoch = "e", log: Entry[] = [], notOverMqtt: readonly string[] = [], roomFilters = false) {
    this.epoch = epoch;
    this.notOverMqtt = notOverMqtt;
    this.roomFilters = roomFilters;
    for (const entry of log) this.append(entry);
  }

  get open(): TransportName[] {
    return this.connections.map(({ name }) => name).sort();
  }

  get head(): string {
    return `${this.epoch}:${this.log.length}`;
  }

  append(entry: Entry): Incoming {
    const event = eventOf(entry, `${this.epoch}:${this.log.length + 1}`);
    this.log.push(event);
    this.deliver(event);
    return event;
  }

  deliver(event: Incoming): void {
    const rooms = roomsOf(event);
    for (const connection of this.connections) {
      if (rooms.some((room) => connection.rooms.has(room))) this.through(connection, () => connection.sink.event(event));
    }
  }

  find(id: string): Incoming {
    return this.log.find((event) => event.id === id) ?? eventOf(id, null);
  }

  set(door: Door, condition: Condition): void {
    this.conditions[door] = condition;
    if (condition !== "up") return;
    for (const connection of this.connections.filter(({ name }) => name === door)) {
      for (const deliver of connection.held.splice(0)) deliver();
      for (const pong of connection.pings.splice(0)) pong();
    }
    const due = this.waiting.filter(([name]) => name === door);
    this.waiting = this.waiting.filter(([name]) => name !== door);
    for (const [, go] of due) go();
  }

  cut(names: readonly TransportName[]): void {
    for (const connection of this.connections.filter(({ name }) => names.includes(name))) {
      this.drop(connection);
      connection.sink.down(network());
    }
  }

  replace(epoch: string): void {
    this.epoch = epoch;
    this.log = [];
    this.oldest = 1;
    this.cut(NAMES);
  }

  heartbeat(): void {
    for (const { name, sink } of this.connections) if (this.conditions[name] === "up") sink.alive();
  }

  // --- what the client sees

  get loaders(): TransportLoaders {
    return Object.fromEntries(NAMES.map((name) => [name, async () => this.transport(name)]));
  }

  private transport(name: TransportName): Transport {
    return async ({ token }, sink) => {
      this.attempts[name] = (this.attempts[name] ?? 0) + 1;
      this.tokens.push(token);
      await this.pass(name);
      if (this.refused.has(token)) throw unauthorized();
      const connection: Connection = { name, sink, rooms: new Set(), held: [], pings: [] };
      this.connections.push(connection);
      let first = true;
      const session: Session = {
        heartbeat: name === "sse" ? 15_000 : name === "socketio" ? 25_000 : 30_000,
        subscribe: async (rooms: readonly RoomDescription[], after: string) => {
          await this.pass(name);
          connection.rooms = new Set(rooms.map(({ room }) => room));
          if (!first && (name === "socketio" || name === "mqtt")) return;
          first = false;
          const { events, complete } = this.after([...connection.rooms], after);
          if (!complete) sink.gap(null);
          for (const event of events) sink.event(event);
        },
        close: () => this.drop(connection),
      };
      if (name === "socketio") {
        session.renew = async (token) => {
          if (this.refused.has(token)) throw unauthorized();
          this.renewed.push(token);
        };
      }
      if (name === "socketio" || name === "mqtt") {
        session.ping = () => (this.conditions[name] === "silent" ? new Promise((resolve) => connection.pings.push(resolve)) : Promise.resolve());
      }
      return session;
    };
  }

  async describe(rooms: readonly string[]): Promise<Description> {
    await this.pass("http");
    const describeRoom = (room: string): RoomDescription =>
      this.denied.has(room)
        ? { room, error: { code: "forbidden", message: "denied" } }
        : { room, ...(this.roomFilters ? { room_filter: `$room/${room}` } : {}), filters: [], mqtt: !this.notOverMqtt.includes(room), match: [{ pattern: "crm/leads/{leadId}/updated", room: "lead:{leadId}" }] };
    return {
      epoch: this.epoch, position: this.head,
      transports: NAMES.filter((name) => this.conditions[name] !== "absent").map((name) => ({ name, url: `fake://${name}` })),
      rooms: rooms.map(describeRoom),
      keepalive: { mqtt_seconds: 30, sse_heartbeat_seconds: 15, poll_max_wait_seconds: 60 },
    };
  }

  async history(rooms: readonly string[], after: string, limit: number): Promise<HistoryPage> {
    await this.pass("http");
    const { events, complete } = this.after(rooms, after);
    const page = events.slice(0, limit);
    return { events: page, complete, position: events.length > limit ? (page.at(-1)?.position as string) : this.head };
  }

  async publish(bodies: readonly string[]): Promise<Published[]> {
    await this.pass("http");
    const documents = bodies.map((body) => JSON.parse(body) as { id: string });
    documents.forEach(({ id }, index) => {
      const code = this.rejected[id];
      if (code) throw new GaplessError(code, `event ${index}`, { details: { index } });
    });
    return documents.map(({ id }) => {
      const known = this.log.some((event) => event.id === id);
      if (!known) this.published.push(id);
      const event = known ? this.find(id) : this.append(id);
      return { id, topic: event.topic, type: event.type, position: event.position, duplicate: known };
    });
  }

  private after(rooms: readonly string[], after: string): { events: Incoming[]; complete: boolean } {
    const [epoch, text] = after === "start" ? [this.epoch, `${this.oldest - 1}`] : (after.split(":") as [string, string]);
    const complete = epoch === this.epoch && Number(text) >= this.oldest - 1;
    const from = complete ? Number(text) : this.oldest - 1;
    return { complete, events: this.log.slice(from).filter((event) => roomsOf(event).some((room) => rooms.includes(room))) };
  }

  private async pass(door: Door): Promise<void> {
    switch (this.conditions[door]) {
      case "silent":
        await new Promise<void>((resolve) => this.waiting.push([door, resolve]));
        return;
      case "refuse":
      case "absent":
        throw network();
      case "unauthorized":
        throw unauthorized();
      case "up":
    }
  }

  private through(connection: Connection, deliver: () => void): void {
    if (this.conditions[connection.name] === "silent") connection.held.push(deliver);
    else deliver();
  }

  private drop(connection: Connection): void {
    this.connections = this.connections.filter((other) => other !== connection);
  }
}

const roomsOf = ({ topic }: Incoming): string[] => (topic.split("/")[2] as string).split("+").map((lead) => `lead:${lead}`);

export function eventOf(entry: Entry, position: string | null): Incoming {
  const { id, rooms } = typeof entry === "string" ? { id: entry, rooms: ["lead:1"] } : entry;
  const lead = rooms.map((room) => room.slice(5)).join("+");
  return { id, type: "lead:updated", topic: `crm/leads/${lead}/updated`, data: { n: id }, time: "2026-01-01T00:00:00.000Z", userId: null, position };
}

