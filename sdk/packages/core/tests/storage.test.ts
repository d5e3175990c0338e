/** Storage that is full, or forbidden as in a private window: one error with a code, and everything else goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { begin } from "./begin.ts";
import { settle } from "./clock.ts";
import { indexedDbOutbox } from "../src/platform/indexeddb.ts";
import { memoryOutbox, memoryStorage } from "../src/platform/memory.ts";
import type { OutboxStore, Platform } from "../src/types.ts";

const full = () => new DOMException("the quota is exceeded", "QuotaExceededError");
const forbidden = () => new DOMException("access is denied", "SecurityError");
const refuse = () => {
  throw forbidden();
};

/** An IndexedDB whose every database is forbidden, as some private windows have it. */
const closedFactory = {
  open() {
    const request = { error: forbidden() } as unknown as IDBOpenDBRequest;
    queueMicrotask(() => request.onerror?.(new Event("error")));
    return request;
  },
} as unknown as IDBFactory;

const broken = (parts: Partial<OutboxStore>): OutboxStore => ({ ...memoryOutbox(), ...parts });
const cases: Record<string, Partial<Platform>> = {
  "the cursor cannot be written": { storage: { ...memoryStorage(), setItem: () => { throw full(); } } },
  "nor later": { storage: { ...memoryStorage(), setItem: () => Promise.reject(full()) } },
  "it cannot be read": { storage: { ...memoryStorage(), getItem: refuse } },
  "storage of the tab is forbidden": { tabStorage: { getItem: refuse, setItem: refuse, removeItem: refuse } },
  "the outbox cannot be opened": { outbox: () => Promise.reject(forbidden()) },
  "nor looked at": { outbox: refuse },
  "IndexedDB is forbidden": { outbox: (name) => indexedDbOutbox(closedFactory, name) },
  "IndexedDB throws": { outbox: (name) => indexedDbOutbox({ open: refuse } as unknown as IDBFactory, name) },
  "the outbox is full": { outbox: () => broken({ add: () => Promise.reject(full()) }) },
  "the outbox cannot be read": { outbox: () => broken({ load: () => Promise.reject(full()) }) },
  "nothing can be taken out of it": { outbox: () => broken({ remove: () => Promise.reject(full()) }) },
};

for (const [about, platform] of Object.entries(cases)) {
  test(about, async () => {
    const { client, clock, gateway, heard, errors } = begin({ platform });
    await clock.advance(0);
    gateway.append("a1");
    const published = await client.publish({ id: "p1", type: "lead:updated", data: {} });
    assert.equal(published.id, "p1");
    gateway.append("a2");
    await settle();
    assert.deepEqual(heard, ["a1", "p1", "a2"]);
    assert.deepEqual(errors, ["storage_failed"], "told once");
    assert.equal(client.status.getSnapshot().queueLength, 0);
    gateway.cut(["socketio"]);
    gateway.append("a3");
    await settle();
    assert.deepEqual(heard.slice(3), ["a3"], "the cursor is in memory");
    await client.close();
  });
}

test("what is received in one step is one write of the cursor", async () => {
  const kept: string[] = [];
  const storage = { ...memoryStorage(), setItem: (_: string, value: string) => void kept.push(value) };
  const { client, clock, gateway, heard } = begin({ platform: { storage } });
  await clock.advance(0);
  gateway.set("http", "refuse");
  gateway.cut(["socketio"]);
  for (let n = 0; n < 300; n++) gateway.append(`a${n}`);
  kept.length = 0;
  gateway.set("http", "up");
  await clock.advance(31_000);
  assert.equal(heard.length, 300);
  assert.deepEqual(kept, [gateway.head]);
  await client.close();
});

test("what is full for the tab is still kept for the user", async () => {
  const storage = memoryStorage();
  const { client, clock, gateway } = begin({ user: "ana", platform: { storage, tabStorage: { ...memoryStorage(), setItem: () => { throw full(); } } } });
  await clock.advance(0);
  gateway.append("a1");
  await settle();
  assert.equal(storage.getItem("gapless:http://gateway.test:ana:cursor"), gateway.head);
  await client.close();
});
