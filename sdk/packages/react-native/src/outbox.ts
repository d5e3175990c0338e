import type { OutboxEntry, OutboxStore, TextStorage } from "@gapless/core";

/**
 * An outbox in a storage of texts: an item for each entry, and one that lists them.
 *
 * The list may name entries that are not there (the process ended between two writes); it never lacks one that is:
 * an entry is listed before it is written, and written before `add` resolves.
 */
export function storageOutbox(storage: TextStorage, name: string): OutboxStore {
  const listKey = `${name}:outbox`;
  const keyOf = (id: string) => `${listKey}:${id}`;
  let ids: string[] | null = null;
  let last: Promise<unknown> = Promise.resolve();

  /** One at a time, in the order of the calls; a failed one does not keep back the next. */
  function inTurn<Result>(step: () => Promise<Result>): Promise<Result> {
    const done = last.then(step, step);
    last = done.catch(() => {});
    return done;
  }

  async function list(): Promise<string[]> {
    return (ids ??= parse<string[]>(await storage.getItem(listKey), Array.isArray) ?? []);
  }

  async function write(changed: string[]): Promise<void> {
    await storage.setItem(listKey, JSON.stringify(changed));
    ids = changed;
  }

  return {
    load: () =>
      inTurn(async () => {
        const found = await Promise.all((await list()).map(async (id) => parse<OutboxEntry>(await storage.getItem(keyOf(id)), isEntry)));
        const entries = found.filter((entry) => entry !== null).sort((one, other) => one.seq - other.seq);
        if (entries.length < found.length) await write(entries.map(({ id }) => id));
        return entries;
      }),
    add: (entry) =>
      inTurn(async () => {
        const before = await list();
        if (!before.includes(entry.id)) await write([...before, entry.id]);
        await storage.setItem(keyOf(entry.id), JSON.stringify(entry));
      }),
    remove: (gone) =>
      inTurn(async () => {
        for (const id of gone) await storage.removeItem(keyOf(id));
        const leaving = new Set(gone);
        await write((await list()).filter((id) => !leaving.has(id)));
      }),
  };
}

function parse<Value>(text: string | null, fits: (value: unknown) => boolean): Value | null {
  if (text === null) return null;
  try {
    const value: unknown = JSON.parse(text);
    return fits(value) ? (value as Value) : null;
  } catch {
    return null; // half written by something else: as if it were not there
  }
}

function isEntry(value: unknown): boolean {
  const { seq, id, body } = (value ?? {}) as Partial<OutboxEntry>;
  return typeof seq === "number" && typeof id === "string" && typeof body === "string";
}
