import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox } from "../src/inbox.ts";

function inbox(): (position: string | null) => boolean {
  const box = new Inbox({ handle() {}, gap() {}, moved() {} });
  const event = { id: "same", type: "t", topic: "crm/leads/1/updated", data: null, time: "", userId: null };
  return (position) => box.event({ ...event, position });
}

test("two places in one log are two events, also with one id", () => {
  const take = inbox();
  assert.deepEqual(["e:1", "e:2", "e:2", null].map(take), [true, true, false, false]);
  assert.equal(take("another:1"), false); // published anew after the log was lost
  assert.deepEqual([null, null, "e:1"].map(inbox()), [true, false, false]);
});
