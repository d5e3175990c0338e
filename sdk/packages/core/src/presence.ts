/** Who is in a room. */
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
      if (--this.watchers === 0) this.cancel();
    };
  };

  connected(): void {
    if (this.watchers) void this.load();
  }

  notice(_name: string, _body: unknown): void {}

  private async load(): Promise<void> {
    this.cancel();
    try {
      const answer = await this.door.fetchJson(`/api/presence?room=${encodeURIComponent(this.room)}`);
      const users = (answer as { rooms?: Record<string, { users?: unknown }> }).rooms?.[this.room]?.users;
      if (Array.isArray(users)) this.members.set(users as PresenceMember[]);
    } catch {
      // Known no better than before; asked again.
    }
    if (this.watchers) this.cancel = this.door.timer(() => void this.load(), INTERVAL);
  }
}
