import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { act, createElement, FakeClient, hydrateRoot, render } from "./dom.ts";
import type { Client, Platform } from "@gapless/core";
import { StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { ConnectionStatus, RealtimeProvider, useConnectionStatus, useEvent, usePresence, useRealtime, useRoom } from "@gapless/react";

/** A client that finds no gateway, and notes what it asks for. */
function settings(url: string, asked: string[] = []) {
  const platform: Partial<Platform> = { fetch: async (input) => (asked.push(String(input)), Promise.reject(new TypeError("no network"))) };
  return { url, platform, tabs: false, transports: ["poll" as const] };
}

async function closedSoon(client: Client) {
  while (client.status.getSnapshot().connection !== "closed") await wait(1);
}

test("StrictMode does not close the client; the end of the provider does", async () => {
  const clients = new Set<Client>();
  const Part = () => {
    clients.add(useRealtime() as Client);
    return useConnectionStatus().connection;
  };
  const options = settings("http://one.test");
  const page = await render(createElement(StrictMode, null, createElement(RealtimeProvider, { options, children: createElement(Part) })));
  await act(async () => wait(5));
  const client = [...clients].at(-1)!;
  assert.equal(client.status.getSnapshot().connection, "connecting");
  await page.unmount();
  await closedSoon(client);
});

test("another URL, and a pause, are other clients; the token is asked of the newest options", async () => {
  const seen: Client[] = [];
  const newest = () => seen.at(-1)!;
  const Part = () => {
    seen.push(useRealtime() as Client);
    useEvent("lead:1", "lead:updated", () => {});
    return null;
  };
  const timers: (() => void)[] = [];
  const base = settings("http://one.test");
  base.platform.timer = (callback) => (timers.push(callback), () => {});
  const element = (more: object, paused = false) =>
    createElement(RealtimeProvider, { options: { ...base, ...more }, paused, children: createElement(Part) });
  const tokens: string[] = [];
  const page = await render(element({ token: () => (tokens.push("old"), "t") }));
  const first = newest();
  await page.rerender(element({ token: () => (tokens.push("new"), "t") }));
  assert.equal(newest(), first);
  await act(async () => timers.splice(0).forEach((due) => due()));
  assert.deepEqual(tokens, ["new"]);
  await page.rerender(element({ url: "http://two.test" }));
  const second = newest();
  assert.notEqual(second, first);
  await closedSoon(first);
  await page.rerender(element({ url: "http://two.test" }, true));
  assert.equal(newest().status.getSnapshot().connection, "closed");
  await closedSoon(second);
  await page.rerender(element({ url: "http://two.test" }));
  assert.notEqual(newest().status.getSnapshot().connection, "closed");
  await page.unmount();
});

test("on a server nothing connects, and the page of the server comes to life as it is", async () => {
  const asked: string[] = [];
  const Part = () => {
    useEvent("lead:1", "*", () => {});
    const { state } = useRoom("lead:1");
    return `${state} ${useConnectionStatus().connection} ${usePresence("lead:1").length}`;
  };
  const html = renderToString(createElement(RealtimeProvider, { options: settings("http://one.test", asked), children: createElement(Part) }));
  assert.equal(html, "joining connecting 0");
  assert.deepEqual(asked, []);

  const fake = new FakeClient();
  const page = createElement(StrictMode, null, createElement(RealtimeProvider, { client: fake.client, children: createElement(ConnectionStatus) }));
  const container = document.createElement("div");
  container.innerHTML = renderToString(page);
  assert.match(container.textContent, /^Connecting/);
  fake.become({ connection: "live", transport: "socketio" }); // it connected before the page came to life
  const errors: unknown[] = [];
  const root = await act(async () => hydrateRoot(container, page, { onRecoverableError: (error) => errors.push(error) }));
  assert.deepEqual(errors, []);
  assert.match(container.textContent, /^LiveSocket\.IO/);
  await act(async () => root.unmount());
});
