/** Cursor and outbox in a folder, for one process of Node at a time. */
import { createHash } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { OutboxEntry, OutboxStore, TextStorage } from "../types.ts";

/** Lines of removals after which the file is written anew. */
const COMPACT_AFTER = 1000;

const fileName = (key: string) => createHash("sha256").update(key).digest("hex").slice(0, 32);

/** Texts as files. Writing replaces the file as a whole, before it returns. */
export function folderStorage(folder: string): TextStorage {
  mkdirSync(folder, { recursive: true });
  const path = (key: string) => join(folder, `${fileName(key)}.txt`);
  return {
    getItem: (key) => readText(path(key)),
    setItem: (key, value) => replace(path(key), value),
    removeItem: (key) => rmSync(path(key), { force: true }),
  };
}

/** A journal: a line for each entry, and for each removal. An entry is on the disk when `add` resolves. */
export async function folderOutbox(folder: string, name: string): Promise<OutboxStore> {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${fileName(name)}.outbox`);
  const entries = new Map<string, OutboxEntry>();
  // A last line without its end was cut off by a kill: it was never promised.
  for (const line of (readText(path) ?? "").split("\n").slice(0, -1)) {
    const { removed, ...entry } = JSON.parse(line) as OutboxEntry & { removed?: string[] };
    if (removed) removed.forEach((id) => entries.delete(id));
    else entries.set(entry.id, entry);
  }
  const whole = () => [...entries.values()].map((entry) => `${JSON.stringify(entry)}\n`).join("");
  replace(path, whole(), true);
  let file = openSync(path, "a");
  let removals = 0;

  const append = (line: object, sync: boolean) => {
    writeSync(file, `${JSON.stringify(line)}\n`);
    if (sync) fsyncSync(file);
  };
  return {
    load: async () => [...entries.values()].sort((one, other) => one.seq - other.seq),
    add: async (entry) => {
      append(entry, true);
      entries.set(entry.id, entry);
    },
    remove: async (ids) => {
      ids.forEach((id) => entries.delete(id));
      append({ removed: ids }, false); // forgotten by a power cut, it is sent again, which is harmless
      if (++removals < COMPACT_AFTER) return;
      removals = 0;
      closeSync(file);
      replace(path, whole(), true);
      file = openSync(path, "a");
    },
    close: () => closeSync(file),
  };
}

/** `sync`: the text is on the disk before it takes the old one's place, so that a power cut leaves one of the two. */
function replace(path: string, text: string, sync = false): void {
  writeFileSync(`${path}.new`, text, { flush: sync });
  renameSync(`${path}.new`, path);
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
