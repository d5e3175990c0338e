/**
 * One connection for all tabs of a user: the tab that holds a lock connects, the others hear through it.
 *
 * A tab that hears through another is a client like any: it has its rooms, its cursor and its order, and the channel
 * between the tabs is its transport. So whatever becomes of the leading tab, nothing is lost: the next one, or the
 * tab itself, goes on from its own cursor.
 */
import { GaplessError } from "./errors.ts";
import type { InboxItem } from "./inbox.ts";
import { reaches } from "./position.ts";
import type { RoomDescription } from "./rooms.ts";
import { bounded, closed } from "./time.ts";
import type { HttpDoor, Session, Sink, Transport, TransportLoaders } from "./transport.ts";
import type { Platform, TransportName, Unsubscribe } from "./types.ts";

/** How long a leader may take to answer at all: it is a tab of the same machine. */
const ANSWER = 1000;
const HEARTBEAT = 5000;
const PAGE = 500;
const BOUND = 30_000;

/** Between tabs. A follower's messages carry its `tab`; the leader's go to all, or to one `tab`. */
type Message =
  | { is: "hello" | "ping" | "bye"; tab: string }
  | { is: "rooms"; tab: string; call: number; rooms: string[] }
  | { is: "welcome" | "pong"; tab: string; transport: TransportName | null }
  | { is: "heard"; tab: string; call: number; transport: TransportName | null; error?: string }
  | { is: "item"; item: InboxItem }
  | { is: "leads" }
  | { is: "over"; transport: TransportName | null };

export interface TabsHost {
  readonly platform: Platform;
  readonly http: HttpDoor;
  /** Hear a room for another tab until the returned function is called. */
  join(room: string): { ready: Promise<void>; leave: Unsubscribe };
  /** The transport that is whole now. */
  transport(): TransportName | null;
  /** Connect now, unless there is a connection. */
  poke(): void;
  /** This tab leads from now on. */
  leading(): void;
}

interface Follower {
  rooms: Map<string, ReturnType<TabsHost["join"]>>;
}

export class Tabs {
  private readonly host: TabsHost;
  private readonly key: string;
  private readonly id: string;
  private readonly channel: BroadcastChannel;
  private readonly followers = new Map<string, Follower>();
  private readonly ended = new AbortController();
  private calls = 0;
  private isLeader = false;
  private readonly hearers = new Set<(message: Message) => void>();

  constructor(key: string, host: TabsHost) {
    this.key = key;
    this.host = host;
    this.id = `${host.platform.now().toString(36)}.${host.platform.random().toString(36).slice(2)}`;
    this.channel = new BroadcastChannel(key);
    this.channel.onmessage = ({ data }) => this.take(data as Message);
  }

  get leads(): boolean {
    return this.isLeader;
  }

  /**
   * Lead, if nobody does; else wait for that in the background.
   *
   * @throws DOMException locks are forbidden here, as in a sandboxed frame
   */
  async start(): Promise<void> {
    // Held as long as this tab lives: how the leader knows.
    this.hold(`${this.key}:tab:${this.id}`, {}, () => {}).catch(() => {}); // told by the next one
    const free = await new Promise<boolean>((resolve, reject) => {
      this.hold(`${this.key}:lead`, { ifAvailable: true }, (lock) => resolve(lock !== null), () => this.lead()).catch(reject);
    });
    if (free || this.ended.signal.aborted) return;
    this.hold(`${this.key}:lead`, { signal: this.ended.signal }, () => {}, () => {
      this.lead();
      for (const hear of [...this.hearers]) hear({ is: "leads" }); // its own links lead nowhere now
      this.host.poke();
    }).catch(() => {}); // aborted: this tab ends
  }

  close(): void {
    if (this.ended.signal.aborted) return;
    this.send({ is: "bye", tab: this.id });
    this.ended.abort();
    this.channel.close();
  }

  /** Each transport, heard through the leading tab where there is one that uses it. */
  wrap(loaders: TransportLoaders): TransportLoaders {
    return Object.fromEntries(
      Object.entries(loaders).map(([name, load]) => [name, async () => this.follow(name as TransportName, await load())]),
    );
  }

  /** Tell the other tabs what was received here. */
  tell(item: InboxItem): void {
    if (this.isLeader && this.followers.size) this.send({ is: "item", item });
  }

  /** The transport changed. */
  changed(transport: TransportName | null): void {
    if (this.isLeader && this.followers.size) this.send({ is: "over", transport });
  }

  /** Hold a lock until `close`; `got` is told whether it was granted, `then` runs where it was. */
  private async hold(name: string, options: LockOptions, got: (lock: Lock | null) => void, then: () => void = () => {}): Promise<void> {
    await navigator.locks.request(name, options, async (lock) => {
      got(lock);
      if (!lock || this.ended.signal.aborted) return;
      then();
      await new Promise<void>((resolve) => this.ended.signal.addEventListener("abort", () => resolve(), { once: true }));
    });
  }

  private lead(): void {
    this.isLeader = true;
    this.host.leading();
    this.send({ is: "leads" });
  }

  private send(message: Message): void {
    if (!this.ended.signal.aborted) this.channel.postMessage(message);
  }

  private take(message: Message): void {
    switch (message.is) {
      case "hello":
      case "ping":
      case "rooms":
      case "bye":
        if (this.isLeader) void this.serve(message);
        break;
      default:
        if ("tab" in message && message.tab !== this.id) return;
        for (const hear of [...this.hearers]) hear(message);
        if (message.is === "leads" || (message.is === "over" && message.transport)) this.host.poke();
    }
  }

  // --- the leading tab

  private async serve(message: Extract<Message, { is: "hello" | "ping" | "rooms" | "bye" }>): Promise<void> {
    const { tab } = message;
    if (message.is === "bye") return this.forget(tab);
    let follower = this.followers.get(tab);
    if (!follower) {
      this.followers.set(tab, (follower = { rooms: new Map() }));
      // Granted once that tab is gone, however it went.
      navigator.locks.request(`${this.key}:tab:${tab}`, { signal: this.ended.signal }, () => this.forget(tab)).catch(() => {});
    }
    const transport = this.host.transport();
    if (message.is === "hello") return this.send({ is: "welcome", tab, transport });
    if (message.is !== "rooms") return this.send({ is: "pong", tab, transport });
    const { call, rooms } = message;
    for (const [room, { leave }] of follower.rooms) {
      if (rooms.includes(room)) continue;
      leave();
      follower.rooms.delete(room);
    }
    for (const room of rooms) if (!follower.rooms.has(room)) follower.rooms.set(room, this.host.join(room));
    try {
      await Promise.all([...follower.rooms.values()].map(({ ready }) => ready));
      this.send({ is: "heard", tab, call, transport: this.host.transport() });
    } catch (error) {
      this.send({ is: "heard", tab, call, transport: null, error: String(error) });
    }
  }

  private forget(tab: string): void {
    for (const { leave } of this.followers.get(tab)?.rooms.values() ?? []) leave();
    this.followers.delete(tab);
  }

  // --- the other tabs

  private follow(name: TransportName, transport: Transport): Transport {
    return async (context, sink, signal) => {
      if (this.isLeader) return transport(context, sink, signal);
      const hello = this.ask((message) => message.is === "welcome");
      this.send({ is: "hello", tab: this.id });
      const welcome = await bounded(this.host.platform, ANSWER, hello, signal).catch(() => null);
      // A leader that does not answer is frozen, or just gone: this tab connects by itself.
      if (welcome?.is !== "welcome") return transport(context, sink, signal);
      return this.session(name, sink, signal);
    };
  }

  private ask(isAnswer: (message: Message) => boolean): Promise<Message> {
    return new Promise((resolve) => {
      const hear = (message: Message) => {
        if (!isAnswer(message)) return;
        this.hearers.delete(hear);
        resolve(message);
      };
      this.hearers.add(hear);
      this.host.platform.timer(() => this.hearers.delete(hear), 60_000);
    });
  }

  private session(name: TransportName, sink: Sink, signal: AbortSignal): Session {
    let held: InboxItem[] | null = [];
    const lost = (why: string) => sink.down(new GaplessError("network", why, { retryable: true }));
    const give = (item: InboxItem) => {
      if ("event" in item) sink.event(item.event);
      else if ("moved" in item) sink.moved(item.moved);
      else sink.gap(item.gap.position);
    };
    const hear = (message: Message) => {
      sink.alive();
      if (message.is === "item") held ? held.push(message.item) : give(message.item);
      else if (message.is === "leads") lost("another tab leads now");
      else if (message.is === "over" && message.transport !== name) lost("the leading tab lost its connection");
    };
    this.hearers.add(hear);
    const close = () => void this.hearers.delete(hear);
    signal.addEventListener("abort", close, { once: true });

    const request = async (rooms: readonly RoomDescription[]): Promise<void> => {
      const call = ++this.calls;
      const answer = this.ask((message) => message.is === "heard" && message.call === call);
      this.send({ is: "rooms", tab: this.id, call, rooms: rooms.map(({ room }) => room) });
      const heard = await bounded(this.host.platform, BOUND, answer, signal);
      if (heard.is !== "heard" || heard.transport !== name) throw new GaplessError("network", "the leading tab hears over another transport", { retryable: true });
    };

    return {
      heartbeat: HEARTBEAT,
      subscribe: async (rooms, after) => {
        held ??= [];
        await request(rooms);
        // The leader hears the rooms from here on. What lies between is read from the log, then what came meanwhile.
        await this.between(rooms, after, sink, signal);
        if (signal.aborted) throw closed();
        const meanwhile = held;
        held = null;
        meanwhile.forEach(give);
      },
      ping: async () => {
        const pong = this.ask((message) => message.is === "pong");
        this.send({ is: "ping", tab: this.id });
        await pong;
      },
      close,
    };
  }

  private async between(rooms: readonly RoomDescription[], after: string, sink: Sink, signal: AbortSignal): Promise<void> {
    const names = rooms.map(({ room }) => room);
    if (!names.length) return;
    const { http } = this.host;
    const { position: head } = await http.describe([], BOUND, signal);
    while (!reaches(after, head)) {
      const page = await http.history(names, after, PAGE, BOUND, signal);
      if (!page.complete) sink.gap(null);
      page.events.forEach((event) => sink.event(event));
      if (page.position === after) break;
      after = page.position;
    }
  }
}
