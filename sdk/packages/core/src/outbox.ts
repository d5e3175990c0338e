/** Publications on their way: kept, sent once and in order, each answered. */
import { toBase64 } from "./envelope.ts";
import { GaplessError, toError } from "./errors.ts";
import { Backoff, closed } from "./time.ts";
import type { HttpDoor } from "./transport.ts";
import type { OutboxEntry, OutboxStore, Platform, Publication, Published, Sent } from "./types.ts";

const BATCH = 100;
const BATCH_BYTES = 1 << 20;
const BOUND = 30_000;

export interface OutboxOptions {
  readonly http: HttpDoor;
  readonly platform: Platform;
  readonly maxEvents: number;
  readonly maxBytes: number;
  /** The length changed. */
  changed(length: number): void;
  /** A leftover of an earlier life was answered. */
  sent(about: Sent): void;
  /** Storage failed. */
  failed(error: GaplessError): void;
}

interface Waiting extends OutboxEntry {
  /** Absent for leftovers. */
  resolve?: (published: Published) => void;
  reject?: (error: GaplessError) => void;
}

export class Outbox {
  private readonly options: OutboxOptions;
  private readonly delays: Backoff;
  private store: OutboxStore | null = null;
  private queue: Waiting[] = [];
  private bytes = 0;
  private lastSeq = 0;
  private sending = false;
  private alone = false;
  /** Whether leftovers were looked for: they are sent first. */
  private isReady = false;
  private isClosed = false;
  private waits = false;
  private cancelRetry = () => {};

  constructor(options: OutboxOptions) {
    this.options = options;
    this.delays = new Backoff(options.platform.random, 500, 30_000);
  }

  get length(): number {
    return this.queue.length;
  }

  /** Keep everything in the store from now on. */
  open(store: OutboxStore): void {
    if (this.isClosed) return void store.close?.();
    this.store = store;
    for (const entry of this.queue) this.keep(entry);
  }

  /** Send what an earlier life, or another tab, left in the store. */
  async adopt(): Promise<void> {
    let leftovers: OutboxEntry[] = [];
    try {
      leftovers = (await this.store?.load()) ?? [];
    } catch (error) {
      return this.options.failed(storageFailed(error));
    }
    if (this.isClosed) return;
    const known = new Set(this.queue.map(({ id }) => id));
    this.queue = [...leftovers.filter(({ id }) => !known.has(id)), ...this.queue];
    this.lastSeq = Math.max(this.lastSeq, ...leftovers.map(({ seq }) => seq)); // the clock may have been put back
    this.bytes = this.queue.reduce((sum, { body }) => sum + body.length, 0);
    this.options.changed(this.length);
    this.wake();
  }

  /** Send from now on: what an earlier life left was looked for. */
  start(): void {
    this.isReady = true;
    void this.flush();
  }

  /** Keep a publication and send it; see `Client.publish`. */
  add(publication: Publication): Promise<Published> {
    const { platform, maxEvents, maxBytes } = this.options;
    return new Promise<Published>((resolve, reject) => {
      if (this.isClosed) throw closed();
      const { id, body } = encode(publication, platform);
      const known = this.queue.find((entry) => entry.id === id);
      if (known && !known.resolve) return void Object.assign(known, { resolve, reject }); // an earlier life began it
      if (known) throw new GaplessError("invalid_request", `the id ${id} is on its way already`);
      if (this.length >= maxEvents || this.bytes + body.length > maxBytes) {
        throw new GaplessError("outbox_full", `${this.length} events wait to be sent`, { details: { maxEvents, maxBytes }, hint: "wait for answers" });
      }
      this.lastSeq = Math.max(this.lastSeq + 1, platform.now() * 1000);
      const entry: Waiting = { id, seq: this.lastSeq, body, resolve, reject };
      this.queue.push(entry);
      this.bytes += body.length;
      this.keep(entry);
      this.options.changed(this.length);
      void this.flush();
    });
  }

  /** The gateway can be reached: send now. */
  wake(): void {
    this.cancelRetry();
    this.waits = false;
    this.delays.reset();
    void this.flush();
  }

  /** Stop. What is kept stays for the next life. */
  close(): void {
    this.isClosed = true;
    this.cancelRetry();
    for (const { reject } of this.queue.splice(0)) reject?.(closed());
    void Promise.resolve(this.store?.close?.()).catch(() => {});
  }

  private async flush(): Promise<void> {
    if (this.sending || this.waits || this.isClosed || !this.isReady) return;
    this.sending = true;
    while (this.queue.length && !this.isClosed) {
      const batch = this.batch();
      try {
        const answers = await this.options.http.publish(batch.map(({ body }) => body), BOUND);
        this.delays.reset();
        this.alone = false;
        batch.forEach((entry, index) => this.settle(entry, answers[index] as Published));
      } catch (cause) {
        const error = toError(cause);
        if (error.retryable || error.code === "unauthorized") {
          this.waits = true;
          this.cancelRetry = this.options.platform.timer(() => {
            this.waits = false;
            void this.flush();
          }, this.delays.next());
          break;
        }
        const index = batch.length === 1 ? 0 : error.details["index"];
        const culprit = typeof index === "number" ? batch[index] : undefined;
        if (culprit) this.settle(culprit, error);
        else this.alone = true; // it does not say whose fault it is: ask one by one
      }
    }
    this.sending = false;
  }

  private batch(): Waiting[] {
    if (this.alone) return this.queue.slice(0, 1);
    let bytes = 0;
    const end = this.queue.slice(0, BATCH).findIndex(({ body }, index) => (bytes += body.length) > BATCH_BYTES && index > 0);
    return this.queue.slice(0, end < 0 ? BATCH : end);
  }

  private settle(entry: Waiting, outcome: Published | GaplessError): void {
    if (this.isClosed) return;
    this.queue = this.queue.filter((other) => other !== entry);
    this.bytes -= entry.body.length;
    this.store?.remove([entry.id]).catch((error: unknown) => this.options.failed(storageFailed(error)));
    this.options.changed(this.length);
    const failed = outcome instanceof GaplessError;
    if (!entry.resolve) this.options.sent({ id: entry.id, published: failed ? null : outcome, error: failed ? outcome : null });
    else if (failed) entry.reject?.(outcome);
    else entry.resolve(outcome);
  }

  private keep({ id, seq, body }: OutboxEntry): void {
    this.store?.add({ id, seq, body }).catch((error: unknown) => this.options.failed(storageFailed(error)));
  }
}

export function storageFailed(cause: unknown): GaplessError {
  return new GaplessError("storage_failed", `storage refuses: ${cause instanceof Error ? cause.message : String(cause)}`, {
    cause, hint: "going on in memory; what waits is lost when this page or process ends",
  });
}

/** The JSON that is sent. */
export function encode(publication: Publication, { now, random }: Pick<Platform, "now" | "random">): { id: string; body: string } {
  const { type, topic, data = null, id = newId(now(), random), time = new Date(now()).toISOString(), qos, retain, expiresIn } = publication;
  if (!type && !topic) throw new GaplessError("invalid_request", "an event needs a type or a topic", { hint: 'publish("lead:updated", data)' });
  const content = data instanceof Uint8Array ? { data_base64: toBase64(data) } : { data };
  try {
    return { id, body: JSON.stringify({ id, type, topic, ...content, time, qos, retain, expires_in: expiresIn }) };
  } catch (cause) {
    throw new GaplessError("invalid_request", `the data is no JSON: ${String(cause)}`, { cause });
  }
}

/** A UUID version 7 (RFC 9562 §5.7): it rises with time. */
function newId(now: number, random: () => number): string {
  const bytes = new Uint8Array(10);
  const { crypto } = globalThis as { crypto?: Crypto }; // React Native has none by itself
  if (crypto) crypto.getRandomValues(bytes);
  else for (let i = 0; i < bytes.length; i++) bytes[i] = random() * 256;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = Math.floor(now).toString(16).padStart(12, "0");
  const variant = "89ab"[(bytes[9] as number) & 3];
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(0, 3)}-${variant}${hex.slice(3, 6)}-${hex.slice(6, 18)}`;
}
