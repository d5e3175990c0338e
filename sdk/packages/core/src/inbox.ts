/** What was received, in order and once; handed out one after the other; the cursor moves behind the handlers. */
import { parsePosition, type Position } from "./position.ts";
import type { Incoming } from "./transport.ts";
import type { Gap } from "./types.ts";

/** Events that may wait for handlers. */
export const MOST_WAITING = 10_000;
/** Ids remembered. */
const MOST_IDS = 10_000;

export type InboxItem = { event: Incoming } | { gap: Gap } | { moved: string };

export interface InboxHooks {
  /** Hand an event out; must not throw. A promise is waited for, and must not reject. */
  handle(event: Incoming): void | PromiseLike<void>;
  gap(gap: Gap): void;
  /** Something was taken in, and waits to be handed out. */
  taken?(item: InboxItem): void;
  /** The handlers of everything up to this position are done. */
  moved(position: string): void;
}

export class Inbox {
  /** The last position received; null before the first. */
  received: string | null = null;
  /** More wait than may. */
  full = false;
  private at: Position | null = null;
  private readonly hooks: InboxHooks;
  /** The ids received, and in which epoch each had a position. */
  private ids = new Map<string, string | null>();
  private olderIds = new Map<string, string | null>();
  private waiting: InboxItem[] = [];
  private next = 0;
  private running = false;
  private closed = false;
  private readonly drained: (() => void)[] = [];

  constructor(hooks: InboxHooks) {
    this.hooks = hooks;
  }

  /** Stand at a position without having received anything. */
  begin(position: string): void {
    this.at = parsePosition(position);
    this.received = position;
  }

  /** Takes an event, unless it is a repeat; whether it did. */
  event(event: Incoming): boolean {
    const at = parsePosition(event.position);
    if (at) {
      if (this.at && this.at.epoch !== at.epoch) this.gap(null, "epoch");
      if (this.at && at.offset <= this.at.offset) return false;
      this.at = at;
      this.received = event.position;
    }
    const isNew = this.isNew(event.id, at ? at.epoch : null);
    if (isNew) this.push({ event });
    else if (at) this.push({ moved: event.position as string });
    return isNew;
  }

  /** Everything up to the position was received. */
  moved(position: string): void {
    const at = parsePosition(position);
    if (!at || (this.at?.epoch === at.epoch && at.offset <= this.at.offset)) return;
    this.at = at;
    this.received = position;
    this.push({ moved: position });
  }

  /** Events after what was received are gone, up to the position, where it is known. */
  gap(position: string | null, reason: Gap["reason"]): void {
    this.push({ gap: { after: this.received, position, reason } });
    this.at = parsePosition(position);
    if (position !== null) {
      this.received = position;
      this.push({ moved: position });
    }
  }

  /** Wait until at most half of what may wait is waiting. */
  async room(): Promise<void> {
    while (this.length > MOST_WAITING / 2 && !this.closed) await new Promise<void>((resolve) => this.drained.push(resolve));
    this.full = false;
  }

  /** Hand nothing more out. */
  close(): void {
    this.closed = true;
    this.waiting = [];
    this.next = 0;
    for (const resolve of this.drained.splice(0)) resolve();
  }

  private get length(): number {
    return this.waiting.length - this.next;
  }

  private isNew(id: string, epoch: string | null): boolean {
    const known = this.ids.get(id) ?? this.olderIds.get(id);
    // Where both have a place in one log, two users have used one id.
    if ((this.ids.has(id) || this.olderIds.has(id)) && (epoch === null || known !== epoch)) return false;
    // Two generations: what is forgotten is between one and two times as old as the bound wants.
    if (this.ids.size >= MOST_IDS) [this.olderIds, this.ids] = [this.ids, new Map()];
    this.ids.set(id, epoch);
    return true;
  }

  private push(item: InboxItem): void {
    if (this.closed) return;
    this.waiting.push(item);
    this.hooks.taken?.(item);
    if (this.length > MOST_WAITING) this.full = true;
    if (!this.running) void this.run();
  }

  /** Without a promise in between as long as handlers give none: then what came in one step is done in it. */
  private async run(): Promise<void> {
    this.running = true;
    let moved: string | null = null;
    while (this.length > 0) {
      const item = this.waiting[this.next++] as InboxItem;
      if (this.next >= 1024) {
        this.waiting.splice(0, this.next);
        this.next = 0;
      }
      if ("moved" in item) moved = item.moved;
      else if ("gap" in item) this.hooks.gap(item.gap);
      else {
        const done = this.hooks.handle(item.event);
        if (done) {
          if (moved !== null) this.hooks.moved(moved);
          moved = null;
          await done;
          if (this.closed) return;
        }
        moved = item.event.position ?? moved;
      }
      if (this.drained.length && this.length <= MOST_WAITING / 2) for (const resolve of this.drained.splice(0)) resolve();
    }
    this.waiting = [];
    this.next = 0;
    this.running = false;
    if (moved !== null && !this.closed) this.hooks.moved(moved);
  }
}
