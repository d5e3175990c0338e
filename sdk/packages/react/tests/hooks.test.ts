import assert from "node:assert/strict";
import { test } from "node:test";
import { act, createElement, failure, FakeClient, render } from "./dom.ts";
import { StrictMode } from "react";
import { RealtimeProvider, useClientEvent, useConnectionStatus, useEvent, usePresence, useRealtime, useRoom } from "@gapless/react";

function inside(fake: FakeClient, Part: () => React.ReactNode) {
  return createElement(StrictMode, null, createElement(RealtimeProvider, { client: fake.client, children: createElement(Part) }));
}

test("an event reaches the newest handler once under StrictMode, and its promise is handed on", async () => {
  const fake = new FakeClient();
  const heard: string[] = [];
  let prefix = "a";
  const Part = () => {
    useEvent("lead:1", "lead:updated", async (data) => void heard.push(`${prefix}${(data as { n: number }).n}`));
    return null;
  };
  const page = await render(inside(fake, Part));
  const done = fake.room("lead:1").send("lead:updated", { n: 1 });
  assert.equal(done.length, 1);
  assert.ok(done[0] instanceof Promise);
  const joins = fake.room("lead:1").joins;
  prefix = "b";
  await page.rerender(inside(fake, Part));
  fake.room("lead:1").send("lead:updated", { n: 2 });
  assert.deepEqual(heard, ["a1", "b2"]);
  assert.equal(fake.room("lead:1").joins, joins, "a rendering must not leave and join");
  await page.unmount();
  assert.equal(fake.room("lead:1").handlers.size, 0);
});

test("a room is joined while the component is there, and says how that went", async () => {
  const fake = new FakeClient();
  let name: string | null = "lead:1";
  const Part = () => {
    const { state, error } = useRoom(name);
    return `${state} ${error?.code ?? ""}`;
  };
  const page = await render(inside(fake, Part));
  assert.equal(page.container.textContent, "joining ");
  await act(async () => fake.room("lead:1").answer.resolve());
  assert.equal(page.container.textContent, "joined ");
  name = "lead:2";
  await page.rerender(inside(fake, Part));
  assert.equal(page.container.textContent, "joining ");
  assert.equal(fake.room("lead:1").handlers.size, 0);
  await act(async () => fake.room("lead:2").answer.reject(failure("forbidden")));
  assert.equal(page.container.textContent, "refused forbidden");
  name = "lead:1";
  await page.rerender(inside(fake, Part));
  assert.equal(page.container.textContent, "joined ");
  await act(async () => fake.emit("error", { error: failure("handler_failed"), room: "lead:1" }));
  assert.equal(page.container.textContent, "joined ");
  await act(async () => fake.emit("error", { error: failure("forbidden"), room: "lead:1" }));
  assert.equal(page.container.textContent, "refused forbidden", "a right that ends later is told too");
  name = null;
  await page.rerender(inside(fake, Part));
  assert.equal(fake.listeners.size, 0);
  await page.unmount();
});

test("presence follows its room", async () => {
  const fake = new FakeClient();
  let room: string | null = "lead:1";
  const Part = () => usePresence(room).map(({ userId }) => userId).join();
  const page = await render(inside(fake, Part));
  await act(async () => fake.presence("lead:1").set([{ userId: "ana" }, { userId: "bob" }]));
  assert.equal(page.container.textContent, "ana,bob");
  room = null;
  await page.rerender(inside(fake, Part));
  assert.equal(page.container.textContent, "");
  assert.equal(fake.presence("lead:1").listeners.size, 0);
  await page.unmount();
});

test("a selector spares renderings", async () => {
  const fake = new FakeClient();
  let renderings = 0;
  const Part = () => {
    renderings += 1;
    return String(useConnectionStatus(({ connection }) => connection === "live"));
  };
  const page = await render(inside(fake, Part));
  const before = renderings;
  await act(async () => fake.become({ latency: 12, lastEventAt: 5 }));
  assert.equal(renderings, before);
  await act(async () => fake.become({ connection: "live" }));
  assert.equal(page.container.textContent, "true");
  await page.unmount();
  assert.equal(fake.status.listeners.size, 0);
});

test("gaps reach their listener", async () => {
  const fake = new FakeClient();
  const gaps: string[] = [];
  const page = await render(inside(fake, () => {
    useClientEvent("gap", ({ reason }) => gaps.push(reason));
    return null;
  }));
  fake.emit("gap", { after: null, position: null, reason: "expired" });
  await page.unmount();
  fake.emit("gap", { after: null, position: null, reason: "epoch" });
  assert.deepEqual(gaps, ["expired"]);
});

test("without a provider the error says what to do", async () => {
  const errors: unknown[] = [];
  const Part = () => {
    try {
      useRealtime();
    } catch (error) {
      errors.push(error);
    }
    return null;
  };
  const page = await render(createElement(Part));
  assert.match(String(errors[0]), /RealtimeProvider/);
  await page.unmount();
});
