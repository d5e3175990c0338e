import assert from "node:assert/strict";
import { test } from "node:test";
import { read } from "../src/transports/mqtt.ts";

const about = { id: "i1", type: "lead:updated", time: "2026-01-01T00:00:00.000Z", position: "e:7" };
const packet = { properties: { userProperties: { ...about } } };
const bytes = (text: string) => new TextEncoder().encode(text);
const at = (payload: Uint8Array) => read("crm/leads/1/updated", payload, packet);

test("the kinds of payload", () => {
  const kinds: [Uint8Array, unknown][] = [
    [bytes('{"n":1}'), { n: 1 }],
    [bytes("[1,2]"), [1, 2]],
    [bytes("12"), 12],
    [bytes("true"), true],
    [bytes("null"), null],
    [bytes('"text"'), "text"],
    [bytes("plain text"), bytes("plain text")],
    [new Uint8Array([0, 255]), new Uint8Array([0, 255])],
    [new Uint8Array(), null],
    [bytes('{"data":{"n":1},"type":"lead:updated"}'), { n: 1 }],
    [bytes('{"data_base64":"AP8=","id":"x"}'), new Uint8Array([0, 255])],
    [bytes('{"data":{"n":1}}'), { data: { n: 1 } }],
    [bytes('{"id":"x","n":1}'), { id: "x", n: 1 }],
    [bytes('{"id":"i1","topic":"crm/leads/1/updated","type":"t","data":{"n":1},"userId":"u","leadId":"1"}'), { n: 1 }],
    [bytes('{"id":"i1","topic":"crm/leads/1/updated","type":"t","data_base64":"AP8="}'), new Uint8Array([0, 255])],
  ];
  for (const [payload, data] of kinds) {
    const event = at(payload);
    assert.deepEqual(event.data, data, new TextDecoder().decode(payload));
    assert.deepEqual({ id: event.id, type: event.type, time: event.time, position: event.position }, about);
    assert.equal(event.topic, "crm/leads/1/updated");
  }
  assert.equal(at(bytes('{"id":"i1","topic":"crm/leads/1/updated","type":"t","data":1,"userId":"u"}')).userId, "u");
});

test("the gateway's own property is the last one, and an empty one takes the publisher's back", () => {
  const forged = { properties: { userProperties: { ...about, position: ["e:1", ""], type: ["mine", "lead:updated"] } } };
  const { type, position } = read("a", bytes("1"), forged);
  assert.deepEqual([type, position], ["lead:updated", null]);
});

test("bytes are no view of the library's buffer with a Buffer's surprises", () => {
  const data = at(Buffer.from([1, 255, 3]).subarray(1)).data as Uint8Array;
  assert.equal(data.constructor, Uint8Array);
  assert.deepEqual([...data], [255, 3]);
});
