/** What answers at the URL, and what the client makes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "../src/client.ts";
import type { GaplessError } from "../src/errors.ts";
import { Gateway } from "../src/gateway.ts";
import { defaultPlatform } from "../src/platform/index.ts";
import { Tokens } from "../src/tokens.ts";

type Answer = (path: string, init: RequestInit) => Response;
const json = (status: number, body: unknown) => new Response(JSON.stringify(body), { status });
const refusal = (status: number, code: string, more = {}) => json(status, { error: { code, message: code, ...more } });

function gatewayThat(answer: Answer, token?: () => Promise<string>) {
  const fetch: typeof globalThis.fetch = async (url, init) => answer(String(url).slice("http://gateway.test".length), init ?? {});
  const platform = { ...defaultPlatform(), fetch };
  return new Gateway("http://gateway.test", platform, new Tokens(token, platform));
}

const codeOf = (promise: Promise<unknown>) => promise.then(() => "nothing", ({ code, retryable }: GaplessError) => `${code}${retryable ? ", retryable" : ""}`);

test("another server than a gateway, a proxy without its gateway, and a network that fails", async () => {
  const answers: [string, Answer][] = [
    ["not_a_gateway, retryable", () => new Response("<html>welcome</html>")],
    ["not_a_gateway, retryable", () => json(200, { some: "other API" })],
    ["not_a_gateway, retryable", () => json(200, null)],
    ["not_a_gateway, retryable", () => json(404, { detail: "Not Found" })],
    ["not_a_gateway, retryable", () => json(403, {})],
    ["network, retryable", () => new Response("bad gateway", { status: 502 })],
    ["network, retryable", () => new Response("slow down", { status: 429 })],
    ["payload_too_large", () => new Response("<html>413</html>", { status: 413 })],
    ["network, retryable", () => { throw new TypeError("fetch failed"); }],
    ["forbidden", () => refusal(403, "forbidden")],
    ["overloaded, retryable", () => refusal(503, "overloaded", { retryable: true })],
  ];
  for (const [expected, answer] of answers) {
    const gateway = gatewayThat(answer);
    assert.equal(await codeOf(gateway.describe(["lead:1"], 1000)), expected);
    assert.equal(await codeOf(gateway.history(["lead:1"], "e:1", 1, 1000)), expected);
    assert.equal(await codeOf(gateway.publish(["{}"], 1000)), expected);
  }
});

test("what the gateway says passes through, data and hint too", async () => {
  const gateway = gatewayThat(() => refusal(413, "payload_too_large", { hint: "send less", details: { size: 300_000, limit: 262_144, index: 2 } }));
  await assert.rejects(gateway.publish(["{}"], 1000), { code: "payload_too_large", retryable: false, hint: "send less", details: { size: 300_000, limit: 262_144, index: 2 } });
});

test("a refused token is asked for once more, and its successor used", async () => {
  const shown: (string | null)[] = [];
  const tokens = ["old", "new", "newer"];
  const gateway = gatewayThat((_, { headers }) => {
    shown.push(new Headers(headers).get("authorization"));
    return shown.at(-1) === "Bearer new" ? json(200, { position: "e:1", epoch: "e", transports: [], rooms: [] }) : refusal(401, "unauthorized");
  }, async () => tokens.shift()!);
  assert.equal((await gateway.describe([], 1000)).position, "e:1");
  assert.deepEqual(shown, ["Bearer old", "Bearer new"]);
  const never = gatewayThat(() => refusal(401, "unauthorized"), async () => "same");
  assert.equal(await codeOf(never.describe([], 1000)), "unauthorized");
});

test("no answer within the bound", async () => {
  const aborted: boolean[] = [];
  const platform = {
    ...defaultPlatform(),
    fetch: ((_: unknown, { signal }: RequestInit) => new Promise((_, reject) => signal!.addEventListener("abort", () => (aborted.push(true), reject(new Error("aborted")))))) as typeof fetch,
  };
  const gateway = new Gateway("http://gateway.test", platform, new Tokens(undefined, platform));
  assert.equal(await codeOf(gateway.describe([], 5)), "timeout, retryable");
  assert.deepEqual(aborted, [true], "the request is given up too");
});

test("mistakes of a call are thrown by it, with a hint", () => {
  for (const url of ["", "ftp://example.com", "http://", "no url"]) assert.throws(() => createClient({ url }), { code: "invalid_request" });
  for (const bounds of [{ open: 0 }, { silence: -1 }, { check: Number.NaN }]) assert.throws(() => createClient({ url: "http://a.test", bounds }), { code: "invalid_request" });
  const client = createClient({ url: "http://a.test" });
  for (const room of ["", "a b", "a,b"]) assert.throws(() => client.room(room), { code: "invalid_request" });
});
