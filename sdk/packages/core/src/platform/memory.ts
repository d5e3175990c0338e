import type { OutboxEntry, OutboxStore, TextStorage } from "../types.ts";

/** Keeps nothing beyond the process. */
export function memoryStorage(): TextStorage {
  const texts = new Map<string, string>();
  return {
    getItem: (key) => texts.get(key) ?? null,
    setItem: (key, value) => void texts.set(key, value),
    removeItem: (key) => void texts.delete(key),
  };
}

/** Keeps nothing beyond the process. */
export function memoryOutbox(): OutboxStore {
  const entries = new Map<string, OutboxEntry>();
  return {
    load: async () => [...entries.values()].sort((one, other) => one.seq - other.seq),
    add: async (entry) => void entries.set(entry.id, entry),
    remove: async (ids) => ids.forEach((id) => entries.delete(id)),
  };
}
