import assert from "node:assert/strict";
import { test } from "node:test";
import { claimsOf, Tokens } from "../src/tokens.ts";
import { begin, jwt } from "./begin.ts";
import { FakeClock, settle } from "./clock.ts";
import { FakeGateway } from "./fake-gateway.ts";

/** Tokens of a life in seconds, one after the other; `asked` counts. */
function issuer(clock: FakeClock, life: number) {
  const issued: string[] = [];
  const token = async () => {
    const iat = clock.now() / 1000;
    issued.push(jwt({ sub: "ana", iat, exp: iat + life, n: issued.length }));
    return issued.at(-1)!;
  };
  return { issued, token };
}

test("a live connection is given a fresh token at 80 % of the old one's life, and stays", async () => {
  const clock = new FakeClock();
  const { issued, token } = issuer(clock, 1000);
  const { client, gateway, states } = begin({ token, transports: ["socketio"] }, new FakeGateway(), clock);
  await clock.advance(0);
  await clock.advance(799_900);
  assert.deepEqual([issued.length, gateway.renewed], [1, []]);
  await clock.advance(200);
  assert.equal(issued.length, 2);
  assert.deepEqual(gateway.renewed, [issued[1]]);
  await clock.advance(800_000);
  assert.deepEqual(gateway.renewed, issued.slice(1), "and so on");
  assert.equal(gateway.attempts.socketio, 1);
  assert.deepEqual(states, ["connecting", "catching_up", "live"]);
  await client.close();
  assert.equal(clock.pending, 0);
});

test("a transport that takes no fresh token is opened anew beside the old one: nothing is missed, no other state shown", async () => {
  for (const name of ["mqtt", "sse", "poll"] as const) {
    const clock = new FakeClock();
    const { issued, token } = issuer(clock, 1000);
    const { client, gateway, states, heard } = begin({ token, transports: [name] }, new FakeGateway(), clock);
    await clock.advance(0);
    gateway.append("a1");
    for (let n = 0; n < 81; n++) {
      await clock.advance(10_000);
      gateway.heartbeat();
    }
    gateway.append("a2");
    await settle();
    assert.deepEqual(gateway.tokens, issued.slice(0, 2));
    assert.deepEqual(gateway.open, [name], "the old one is closed");
    assert.deepEqual(heard, ["a1", "a2"]);
    assert.deepEqual(states, ["connecting", "catching_up", "live"]);
    await client.close();
  }
});

test("a short life: at the latest 10 s before its end, and never more often than each second", async () => {
  for (const [life, due] of [[20, 10_000], [5, 1000]] as const) {
    const clock = new FakeClock();
    const { issued, token } = issuer(clock, life);
    const tokens = new Tokens(token, clock);
    await tokens.get();
    await clock.advance(due - 1);
    assert.equal(issued.length, 1);
    await clock.advance(1);
    assert.equal(issued.length, 2);
    tokens.close();
  }
});

test("it is never asked for twice at a time, and kept until it is refused", async () => {
  const asked: ((token: string) => void)[] = [];
  const tokens = new Tokens(() => new Promise<string>((resolve) => asked.push(resolve)), new FakeClock());
  const both = [tokens.get(), tokens.get()];
  await settle();
  assert.equal(asked.length, 1);
  asked[0]!("one");
  assert.deepEqual(await Promise.all(both), ["one", "one"]);
  assert.equal(await tokens.get(), "one");
  tokens.refuse("another");
  assert.equal(await tokens.get(), "one", "another's refusal is not its own");
  tokens.refuse("one");
  const next = tokens.get();
  asked[1]!("two");
  assert.equal(await next, "two");
});

test("a renewal that fails is repeated, and the old token serves until its end", async () => {
  const clock = new FakeClock();
  const { issued, token } = issuer(clock, 1000);
  let fails = false;
  let calls = 0;
  const source = () => (calls++, fails ? Promise.reject(new Error("the server of tokens is down")) : token());
  const { client, gateway, errors } = begin({ token: source, transports: ["socketio"] }, new FakeGateway(), clock);
  await clock.advance(0);
  fails = true;
  await clock.advance(811_000);
  assert.equal(calls, 4, "at 800, 805 and 810 s");
  assert.equal(client.status.getSnapshot().connection, "live");
  fails = false;
  await clock.advance(5000);
  assert.deepEqual(gateway.renewed, [issued[1]]);
  assert.deepEqual(errors, []);
  await client.close();
});

test("a refused token is asked for anew; where the fresh one is refused too, it says so and goes on asking", async () => {
  const clock = new FakeClock();
  const gateway = new FakeGateway();
  let now = "first";
  gateway.refused.add("first");
  const { client, heard } = begin({ token: async () => now, user: "ana", transports: ["socketio", "sse"] }, gateway, clock);
  await clock.advance(0);
  const { connection, error, retryAt } = client.status.getSnapshot();
  assert.deepEqual([connection, error?.code, error?.retryable], ["offline", "unauthorized", false]);
  assert.ok(retryAt !== null && retryAt > clock.now());
  assert.ok(!gateway.attempts.sse, "another transport would be refused alike");
  gateway.append("a1");
  now = "second";
  await clock.advance(31_000);
  assert.equal(client.status.getSnapshot().connection, "live");
  assert.equal(client.status.getSnapshot().error, null);
  gateway.append("a2");
  await settle();
  assert.deepEqual(heard, ["a2"], "it had no place in the log before");
  await client.close();
});

test("an empty token, as of a variable that is not set, is none", async () => {
  const clock = new FakeClock();
  const gateway = new FakeGateway();
  const { client } = begin({ token: async () => "" }, gateway, clock);
  await clock.advance(0);
  assert.deepEqual(gateway.tokens, [null]);
  await client.close();
});

test("token() that fails has a code, and is asked again", async () => {
  const clock = new FakeClock();
  let fails = true;
  const token = async () => {
    if (fails) throw new Error("not signed in");
    return "good";
  };
  for (const user of [undefined, "ana"]) {
    fails = true;
    const { client } = begin({ token, ...(user ? { user } : {}) }, new FakeGateway(), clock);
    await clock.advance(0);
    const { connection, error } = client.status.getSnapshot();
    assert.deepEqual([connection, error?.code, error?.retryable], ["offline", "token_failed", true]);
    assert.match(error!.message, /not signed in/);
    fails = false;
    await clock.advance(31_000);
    assert.equal(client.status.getSnapshot().connection, "live");
    await client.close();
  }
});

test("claims are read of a JWT alone", () => {
  assert.equal(claimsOf(jwt({ sub: "é" })).sub, "é");
  for (const token of [null, "", "plain", "a.b.c", `x.${btoa("[1]")}.y`, `x.${btoa("null")}.y`]) assert.equal(claimsOf(token).sub, undefined);
});
