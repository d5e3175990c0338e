/** A clock that moves by hand. */
import type { Platform } from "../src/types.ts";

interface Timer {
  at: number;
  order: number;
  callback: () => void;
}

/** Let everything that is due without time passing happen. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 3; round++) await new Promise((resolve) => setImmediate(resolve));
}

export class FakeClock implements Pick<Platform, "now" | "timer"> {
  private time = 1_000_000;
  private order = 0;
  private timers: Timer[] = [];

  readonly now = (): number => this.time;

  readonly timer = (callback: () => void, ms: number): (() => void) => {
    const timer = { at: this.time + Math.max(0, ms), order: this.order++, callback };
    this.timers.push(timer);
    return () => void (this.timers = this.timers.filter((other) => other !== timer));
  };

  get pending(): number {
    return this.timers.length;
  }

  /** Pass time, stopping at each timer. */
  async advance(ms: number): Promise<void> {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const due = this.timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at || one.order - other.order)[0];
      if (!due) break;
      this.timers = this.timers.filter((timer) => timer !== due);
      this.time = Math.max(this.time, due.at);
      due.callback();
      await settle();
    }
    this.time = end;
    await settle();
  }
}
