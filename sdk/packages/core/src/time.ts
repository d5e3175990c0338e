/** Bounded waiting, smoothed averages, delays. */
import { GaplessError } from "./errors.ts";
import type { Bounds, Platform } from "./types.ts";

type Clock = Pick<Platform, "timer">;

/**
 * The promise's outcome, unless it takes too long or the signal is aborted first.
 *
 * @throws GaplessError `timeout`, `closed`
 */
export function bounded<T>(clock: Clock, ms: number, promise: PromiseLike<T>, signal?: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => end(() => reject(closed()));
    const late = () => end(() => reject(new GaplessError("timeout", `no answer within ${Math.round(ms)} ms`, { retryable: true })));
    const cancel = clock.timer(late, ms);
    const end = (settle: () => void) => {
      cancel();
      signal?.removeEventListener("abort", abort);
      settle();
    };
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    promise.then(
      (value) => end(() => resolve(value)),
      (error: unknown) => end(() => reject(error)),
    );
  });
}

export const closed = (): GaplessError => new GaplessError("closed", "the client, or this attempt, was closed");

/** Exponential delays with full jitter: drawn evenly from 0 to a bound that doubles. */
export class Backoff {
  private attempts = 0;
  private readonly random: () => number;
  private readonly first: number;
  private readonly limit: number;

  /** @param first bound of the first delay @param limit the largest bound; both in milliseconds */
  constructor(random: () => number, first: number, limit: number) {
    this.random = random;
    this.first = first;
    this.limit = limit;
  }

  next(): number {
    return Math.min(this.limit, this.first * 2 ** Math.min(this.attempts++, 32)) * this.random();
  }

  reset(): void {
    this.attempts = 0;
  }
}

/** An average with weight 1/8 for the newest value. */
export class Mean {
  value: number | null = null;
  count = 0;

  add(sample: number): void {
    this.count++;
    this.value = this.value === null ? sample : this.value + (sample - this.value) / 8;
  }
}

const within = (value: number, least: number, most: number) => Math.min(most, Math.max(least, value));

/** See "Bounds" in docs/client-protocol.md; milliseconds. `most` is the application's own limit. */
export const openBound = (latency: number | null, most = Infinity): number =>
  Math.min(most, latency === null ? 8000 : within(2000 + 8 * latency, 4000, 20_000));
export const checkBound = (latency: number | null, most = Infinity): number =>
  Math.min(most, latency === null ? 5000 : within(1000 + 4 * latency, 2000, 10_000));
export const silenceBound = (gaps: Mean, heartbeat: number, most = Infinity): number =>
  Math.min(most, gaps.value === null || gaps.count < 8 ? 1.5 * heartbeat : within(2000 + 8 * gaps.value, 3000, 1.5 * heartbeat));

/** @throws GaplessError `invalid_request`: one is no positive number */
export function checkBounds(bounds: Bounds = {}): Bounds {
  for (const [name, ms] of Object.entries(bounds)) {
    if (ms !== undefined && !(ms > 0)) throw new GaplessError("invalid_request", `bounds.${name} is not a positive number of milliseconds: ${ms}`);
  }
  return bounds;
}
