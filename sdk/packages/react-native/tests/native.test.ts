import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { createClient, type OutboxEntry, type TextStorage } from "@gapless/core";
import { foreground, nativePlatform, storageOutbox, type NetInfoStateLike } from "@gapless/react-native";

class App {
  currentState: string | null = "active";
  listeners = new Set<(state: string) => void>();
  addEventListener(_: "change", listener: (state: string) => void) {
    this.listeners.add(listener);
    return { remove: () => void this.listeners.delete(listener) };
  }
  become(state: string) {
    this.currentState = state;
    for (const listener of [...this.listeners]) listener(state);
  }
}

class Net {
  listeners = new Set<(state: NetInfoStateLike) => void>();
  addEventListener(listener: (state: NetInfoStateLike) => void) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  become(type: string, isConnected: boolean | null, details?: unknown) {
    for (const listener of [...this.listeners]) listener({ type, isConnected, details });
  }
}

/** As AsyncStorage; `writes` may run out, as where the process ends. */
class Disk implements TextStorage {
  items = new Map<string, string>();
  writes = Infinity;
  getItem = async (key: string) => this.items.get(key) ?? null;
  setItem = async (key: string, value: string) => {
    this.spend();
    this.items.set(key, value);
  };
  removeItem = async (key: string) => {
    this.spend();
    this.items.delete(key);
  };
  private spend() {
    if (this.writes-- <= 0) throw new Error("the process has ended");
  }
}

const entry = (seq: number): OutboxEntry => ({ seq, id: `e${seq}`, body: `{"n":${seq}}` });

test("what the device says becomes what the client hears", () => {
  const app = new App();
  const net = new Net();
  const heard: string[] = [];
  const platform = nativePlatform({ AppState: app, NetInfo: net, AsyncStorage: new Disk() });
  assert.equal(platform.profile, "mobile");
  const end = platform.listen((signal) => heard.push(signal));
  const told = (step: () => void) => (step(), heard.splice(0));
  assert.deepEqual(told(() => net.become("wifi", true, { ssid: "home", strength: 80 })), []);
  assert.deepEqual(told(() => net.become("wifi", true, { ssid: "home", strength: 20 })), []);
  assert.deepEqual(told(() => net.become("cellular", true)), ["changed"]);
  assert.deepEqual(told(() => net.become("none", false)), ["offline"]);
  assert.deepEqual(told(() => net.become("wifi", true, { ssid: "home" })), ["online"]);
  assert.deepEqual(told(() => app.become("inactive")), []);
  assert.deepEqual(told(() => app.become("active")), []);
  assert.deepEqual(told(() => app.become("background")), ["hidden"]);
  assert.deepEqual(told(() => app.become("active")), ["visible"]);
  end();
  assert.equal(app.listeners.size + net.listeners.size, 0);
});

test("the outbox outlives the process, in order", async () => {
  const disk = new Disk();
  const outbox = storageOutbox(disk, "x");
  await Promise.all([entry(1), entry(2), entry(3)].map((each) => outbox.add(each)));
  await outbox.remove(["e2"]);
  await outbox.add(entry(4));
  assert.deepEqual(await storageOutbox(disk, "x").load(), [entry(1), entry(3), entry(4)]);
  assert.deepEqual(await storageOutbox(disk, "other").load(), []);
  await outbox.remove(["e1", "e3", "e4"]);
  assert.deepEqual([...disk.items], [["x:outbox", "[]"]]);
});

test("an end at any write loses nothing that was kept, and keeps nothing twice", async () => {
  for (let writes = 0; writes <= 4; writes++) {
    const disk = new Disk();
    const outbox = storageOutbox(disk, "x");
    await outbox.add(entry(1));
    disk.writes = writes;
    const done = await Promise.allSettled([outbox.add(entry(2)), outbox.remove(["e1"])]);
    disk.writes = Infinity;
    const found = (await storageOutbox(disk, "x").load()).map(({ seq }) => seq);
    const [added, removed] = done.map(({ status }) => status === "fulfilled");
    if (added) assert.ok(found.includes(2));
    if (removed) assert.ok(!found.includes(1));
    if (writes < 3) assert.ok(found.includes(1), `after ${writes} writes nothing was taken out`);
    assert.equal(new Set(found).size, found.length);
  }
});

test("a damaged entry is passed over", async () => {
  const disk = new Disk();
  await storageOutbox(disk, "x").add(entry(1));
  await storageOutbox(disk, "x").add(entry(2));
  disk.items.set("x:outbox:e1", "{");
  assert.deepEqual(await storageOutbox(disk, "x").load(), [entry(2)]);
  disk.items.set("x:outbox", "no list");
  assert.deepEqual(await storageOutbox(disk, "x").load(), []);
});

test("the connection is closed some time after the application was left", (context: TestContext) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const app = new App();
  const values: boolean[] = [];
  const here = foreground(app, { closeAfter: 20_000 });
  here.subscribe(() => values.push(here.getSnapshot()));
  app.become("background");
  context.mock.timers.tick(19_999);
  app.become("active"); // only a short look elsewhere
  context.mock.timers.tick(60_000);
  assert.deepEqual(values, []);
  app.become("background");
  context.mock.timers.tick(20_000);
  app.become("active");
  assert.deepEqual(values, [false, true]);
  here.end();
  assert.equal(app.listeners.size, 0);
});

test("a client of these parts keeps an event for its next life", async () => {
  const disk = new Disk();
  const life = async (answer: (body: string) => Response) => {
    const fetch = async (_: string | URL | Request, init?: RequestInit) => {
      if (init?.method !== "POST") throw new TypeError("Network request failed");
      return answer(String(init.body));
    };
    const parts = nativePlatform({ AppState: new App(), NetInfo: new Net(), AsyncStorage: disk });
    return createClient({ url: "http://gateway.test", user: "7", transports: ["poll"], platform: { ...parts, fetch: fetch as typeof globalThis.fetch } });
  };
  const first = await life(() => { throw new TypeError("Network request failed"); });
  const lost = first.publish("lead:updated", { leadId: "1" }, { id: "note-1" });
  lost.catch(() => {});
  while (!disk.items.has("gapless:http://gateway.test:7:outbox:note-1")) await new Promise((resolve) => setTimeout(resolve, 1));
  await first.close();
  const bodies: string[] = [];
  const second = await life((body) => {
    bodies.push(body);
    const events = (JSON.parse(body) as { id: string }[]).map(({ id }) => ({ id, topic: "t", type: "x", position: "e:1", duplicate: false }));
    return new Response(JSON.stringify({ events }), { status: 201, headers: { "content-type": "application/json" } });
  });
  const sent = new Promise((resolve) => second.on("sent", resolve));
  second.room("lead:1").on("*", () => {});
  const { id, published } = (await sent) as { id: string; published: { position: string } };
  assert.deepEqual([id, published.position], ["note-1", "e:1"]);
  assert.match(bodies[0]!, /note-1/);
  await second.close();
});
