import assert from "node:assert/strict";
import { test } from "node:test";
import { act, createElement, failure, FakeClient, render } from "./dom.ts";
import { ConnectionStatus, LABELS, qualityOf, RealtimeProvider, type ConnectionStatusProps } from "@gapless/react";

async function show(props: ConnectionStatusProps = {}) {
  const fake = new FakeClient();
  const page = await render(createElement(RealtimeProvider, { client: fake.client, children: createElement(ConnectionStatus, props) }));
  const badge = page.container.querySelector("button")!;
  return { ...page, fake, badge, panel: () => page.container.querySelector("section") };
}

test("the state is read out by itself, the figures are not", async () => {
  const { container, fake, unmount } = await show();
  const live = container.querySelector("[role=status]")!;
  assert.equal(live.getAttribute("aria-live"), "polite");
  for (const [state, text] of Object.entries(LABELS.states)) {
    await act(async () => fake.become({ connection: state as keyof typeof LABELS.states, latency: 20, queueLength: 3 }));
    assert.equal(live.textContent, text);
  }
  assert.equal(container.querySelector(".gapless-status-count")?.textContent, "3");
  await unmount();
});

test("the panel opens, tells everything, reconnects, and Escape gives the focus back", async () => {
  const { fake, badge, panel, unmount } = await show();
  assert.equal(badge.getAttribute("aria-expanded"), "false");
  await act(async () => badge.click());
  assert.equal(badge.getAttribute("aria-controls"), panel()!.id);
  const now = Date.now();
  await act(async () => fake.become({
    connection: "degraded", transport: "mqtt", latency: 230.4, queueLength: 2, lastEventAt: now - 65_000, failovers: 3,
    lastFailover: { at: now - 600_000, from: "socketio", to: "mqtt", reason: "timeout" },
    error: failure("timeout"), retryAt: now + 4_500,
  }));
  const text = panel()!.textContent;
  for (const part of ["MQTT", "Fair 230 ms", "65 s ago", "Socket.IO → MQTT", "10 min ago, timeout", "Fail-overs3", /in [45] s/]) assert.match(text, part instanceof RegExp ? part : new RegExp(part.replace(/[.]/g, "\\.")));
  await act(async () => panel()!.querySelector<HTMLButtonElement>(".gapless-status-reconnect")!.click());
  assert.equal(fake.reconnects, 1);
  await act(async () => panel()!.dispatchEvent(new window.KeyboardEvent("keydown", { key: "Escape", bubbles: true })));
  assert.equal(panel(), null);
  assert.equal(document.activeElement, badge);
  await unmount();
});

test("a closed client cannot reconnect; texts can be others", async () => {
  const { container, fake, unmount } = await show({ defaultOpen: true, className: "mine", labels: { reconnect: "Neu verbinden" } });
  await act(async () => fake.become({ connection: "closed" }));
  const button = container.querySelector<HTMLButtonElement>(".gapless-status-reconnect")!;
  assert.equal(button.textContent, "Neu verbinden");
  assert.ok(button.disabled);
  assert.equal(container.querySelector(".gapless-status.mine")?.getAttribute("data-state"), "closed");
  await unmount();
});

test("quality is told only of a connection", () => {
  const of = (latency: number | null, connection: "live" | "offline" = "live") => qualityOf({ connection, latency });
  assert.deepEqual([of(null), of(150), of(151), of(501), of(10, "offline")], [null, "good", "fair", "poor", null]);
});
