import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { GaplessError } from "../src/errors.ts";
import { memoryOutbox } from "../src/platform/memory.ts";
import { folderOutbox } from "../src/platform/node.ts";
import type { Publication } from "../src/types.ts";
import { begin } from "./begin.ts";
import { settle } from "./clock.ts";
import { FakeGateway } from "./fake-gateway.ts";

const lead = (id: string): Publication => ({ id, type: "lead:updated", data: {} });
const body = (id: string) => JSON.stringify({ id, type: "lead:updated" });

test("what an earlier life left is sent first, also where something new is published at once", async () => {
  const store = memoryOutbox();
  await store.add({ id: "old", seq: 1, body: body("old") });
  const { client, clock, gateway, sent } = begin({ platform: { outbox: () => store } });
  const fresh = client.publish(lead("new"));
  await clock.advance(0);
  await fresh;
  assert.deepEqual(gateway.published, ["old", "new"]);
  assert.deepEqual(sent.map(({ id, published }) => [id, published?.id]), [["old", "old"]]);
  assert.deepEqual(await store.load(), []);
  await client.close();
});

test("order survives a clock that was put back", async () => {
  const store = memoryOutbox();
  await store.add({ id: "old", seq: 9e15, body: body("old") });
  const gateway = new FakeGateway();
  gateway.set("http", "refuse");
  const { client, clock } = begin({ platform: { outbox: () => store } }, gateway);
  await clock.advance(0);
  client.publish(lead("new")).catch(() => {});
  await settle();
  await client.close();
  assert.deepEqual((await store.load()).map(({ id }) => id), ["old", "new"]);
});

test("it is bounded in events and in bytes, and takes more once there is room", async () => {
  const gateway = new FakeGateway();
  gateway.set("http", "refuse");
  const { client, clock } = begin({ outbox: { maxEvents: 2, maxBytes: 400 } }, gateway);
  const answers: string[] = [];
  const publish = (publication: Publication) =>
    void client.publish(publication).then(({ id }) => answers.push(id), (error: GaplessError) => answers.push(error.code));
  publish(lead("p1"));
  publish({ ...lead("large"), data: "x".repeat(400) });
  publish(lead("p2"));
  publish(lead("p3"));
  publish(lead("p2"));
  publish({ data: 1 });
  publish({ ...lead("loop"), data: 1n });
  await clock.advance(0);
  assert.deepEqual(answers, ["outbox_full", "outbox_full", "invalid_request", "invalid_request", "invalid_request"]);
  assert.equal(client.status.getSnapshot().queueLength, 2);
  gateway.set("http", "up");
  await clock.advance(31_000);
  assert.deepEqual(answers.slice(5), ["p1", "p2"]);
  publish(lead("p4"));
  await settle();
  assert.deepEqual(gateway.published, ["p1", "p2", "p4"]);
  await client.close();
});

test("where a whole request is refused, it is found out whose fault that is", async () => {
  const gateway = new FakeGateway();
  gateway.set("http", "refuse");
  const { client, clock } = begin({}, gateway);
  const answers: string[] = [];
  for (const id of ["p1", "p2", "p3"]) client.publish(lead(id)).then(() => answers.push(`${id} ok`), ({ code }: GaplessError) => answers.push(`${id} ${code}`));
  await clock.advance(0);
  const publish = gateway.publish.bind(gateway);
  gateway.publish = async (bodies) => {
    if (bodies.some((text) => text.includes("p2"))) throw new GaplessError("payload_too_large", "a proxy says so, and of no event"); // no index
    return publish(bodies);
  };
  gateway.set("http", "up");
  await clock.advance(31_000);
  assert.deepEqual(answers, ["p1 ok", "p2 payload_too_large", "p3 ok"]);
  await client.close();
});

test("close() refuses who waits, and keeps the events", async () => {
  const store = memoryOutbox();
  const gateway = new FakeGateway();
  gateway.set("http", "refuse");
  const { client, clock } = begin({ platform: { outbox: () => store } }, gateway);
  const waiting = assert.rejects(client.publish(lead("p1")), { code: "closed" });
  await clock.advance(0);
  await client.close();
  await waiting;
  await assert.rejects(client.publish(lead("p2")), { code: "closed" });
  assert.deepEqual((await store.load()).map(({ id }) => id), ["p1"]);
});

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "gapless-outbox-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("an outbox in a folder survives kill -9 in the moment an entry was added", () =>
  inFolder(async (folder) => {
    const source = `
      import { folderOutbox } from ${JSON.stringify(new URL("../src/platform/node.ts", import.meta.url).href)};
      const store = await folderOutbox(${JSON.stringify(folder)}, "ana");
      for (const id of ["a", "b", "c"]) await store.add({ id, seq: id.charCodeAt(0), body: id });
      await store.remove(["b"]);
      process.kill(process.pid, "SIGKILL");`;
    assert.throws(() => execFileSync(process.execPath, ["--input-type=module", "-e", source], { stdio: "ignore" }), { signal: "SIGKILL" });
    const store = await folderOutbox(folder, "ana");
    assert.deepEqual((await store.load()).map(({ id }) => id), ["a", "c"]);
    await store.close?.();
  }));

test("a line that a kill cut off was never promised; others' names are others' files", () =>
  inFolder(async (folder) => {
    const store = await folderOutbox(folder, "ana");
    await store.add({ id: "a", seq: 1, body: "a" });
    await store.close?.();
    appendFileSync(join(folder, readdirSync(folder).find((name) => name.endsWith(".outbox"))!), '{"id":"b","se');
    const again = await folderOutbox(folder, "ana");
    await again.add({ id: "c", seq: 3, body: "c" });
    assert.deepEqual((await again.load()).map(({ id }) => id), ["a", "c"]);
    await again.close?.();
    const third = await folderOutbox(folder, "ana");
    assert.deepEqual((await third.load()).map(({ id }) => id), ["a", "c"]);
    await third.close?.();
    const bob = await folderOutbox(folder, "bob");
    assert.deepEqual(await bob.load(), []);
    await bob.close?.();
  }));

test("the file stays small, whatever has gone through it", () =>
  inFolder(async (folder) => {
    const store = await folderOutbox(folder, "ana");
    await store.add({ id: "stays", seq: 0, body: "stays" });
    for (let seq = 1; seq <= 1000; seq++) await store.remove([`gone${seq}`]);
    await store.add({ id: "last", seq: 1001, body: "last" });
    assert.deepEqual((await store.load()).map(({ id }) => id), ["stays", "last"]);
    await store.close?.();
    const again = await folderOutbox(folder, "ana");
    assert.deepEqual((await again.load()).map(({ id }) => id), ["stays", "last"]);
    await again.close?.();
  }));
