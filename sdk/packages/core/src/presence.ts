/** Who is in a room: told over Socket.IO, asked for over other transports. */
import { Store } from "./observable.ts";
import type { Presence, PresenceMember, Unsubscribe } from "./types.ts";

const INTERVAL = 15_000;

/** What presence asks of the client. */
export interface PresenceDoor {
  /** Over the live link; null where it has no questions. */
  request(name: string, body: object): Promise<unknown> | null;
  fetchJson(path: string): Promise<unknown>;
  timer(callback: () => void, ms: number): Unsubscribe;
}

export class PresenceRoom implements Presence {
  readonly room: string;
  private readonly door: PresenceDoor;
  private readonly members = new Store<readonly PresenceMember[]>([]);
  private watchers = 0;
  private cancel = () => {};

  constructor(room: string, door: PresenceDoor) {
    this.room = room;
    this.door = door;
  }

  readonly getSnapshot = (): readonly PresenceMember[] => this.members.getSnapshot();

  readonly subscribe = (listener: () => void): Unsubscribe => {
    const unsubscribe = this.members.subscribe(listener);
    if (++this.watchers === 1) void this.load();
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      unsubscribe();
      if (--this.watchers > 0) return;
      this.cancel();
      this.door.request("presence", { rooms: [this.room], live: false })?.catch(() => {}); // gone with its connection
    };
  };

  connected(): void {
    if (this.watchers) void this.load();
  }

  /** A change, as Socket.IO tells it. */
  notice(name: string, body: unknown): void {
    if (!this.watchers || (body as { room?: unknown } | null)?.room !== this.room) return;
    if (name === "gapless:present") this.take(body);
    if (name !== "gapless:presence") return;
    const { userId, online, connections } = body as { userId: string | null; online: boolean; connections: number };
    if (userId === null) return; // nobody that is known
    const before = this.members.getSnapshot();
    const known = before.find((member) => member.userId === userId);
    if (!online) return this.members.set(before.filter((member) => member !== known));
    const now = { ...known, userId, connections };
    this.members.set(known ? before.map((member) => (member === known ? now : member)) : [...before, now]);
  }

  private async load(): Promise<void> {
    this.cancel();
    this.cancel = () => {};
    let told = false;
    try {
      const asked = this.door.request("presence", { rooms: [this.room] });
      const answer = await (asked ?? this.door.fetchJson(`/api/presence?room=${encodeURIComponent(this.room)}`));
      this.take((answer as { rooms?: Record<string, unknown> }).rooms?.[this.room]);
      told = asked !== null;
    } catch {
      // Known no better than before; asked again.
    }
    if (this.watchers && !told) this.cancel = this.door.timer(() => void this.load(), INTERVAL);
  }

  private take(body: unknown): void {
    const users = (body as { users?: unknown } | undefined)?.users;
    if (this.watchers && Array.isArray(users)) this.members.set(users as PresenceMember[]);
  }
}
