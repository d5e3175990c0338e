// A process of stock JavaScript publishers under torture, by the configuration in the file named by the first
// argument (gapless.torture.publisher.PublisherConfig). Each journals what it tries and what was acknowledged.
import { commands, config, dataOf, Journal, load, topicOf } from "./shared.mjs";

const windows = { "js-socketio": 4, "js-mqtt1": 8, "js-mqtt2": 8 };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let stopping = false;
commands(() => (stopping = true));

/** Answers with a position, or null where the door tells none; tries until it is acknowledged. */
function socketioDoor({ url }, journal) {
  const socket = load("socket.io-client").io(url, { reconnectionDelay: 100, reconnectionDelayMax: 1000, timeout: 5000 });
  return async (n, data) => {
    for (;;) {
      try {
        const answer = await socket.timeout(10000).emitWithAck("publish", { id: `${data.p}/${n}`, topic: topicOf(data), data });
        if (answer.ok) return answer.position;
        journal.write("refused", { why: JSON.stringify(answer.error) });
        if (!answer.error.retryable) throw new Error(answer.error.message);
      } catch (error) {
        journal.write("retry", { why: error.message });
      }
      await sleep(200);
    }
  };
}

/** The library keeps what is unacknowledged, and sends it again in the same session: no ids are needed at QoS 2. */
function mqttDoor({ url, door }, journal) {
  const five = door === "js-mqtt1";
  const qos = five ? 1 : 2;
  const client = load("mqtt").connect(url, {
    clientId: `torture-${door}`, clean: false, protocolVersion: five ? 5 : 4, connectTimeout: 5000,
    reconnectPeriod: 300, keepalive: 5, reconnectOnConnackError: true, ...(five ? { properties: { sessionExpiryInterval: 86400 } } : {}),
  });
  client.on("error", (error) => journal.write("retry", { why: error.message }));
  return async (n, data) => {
    const properties = five ? { properties: { userProperties: { id: `${data.p}/${n}` } } } : {};
    for (;;) {
      try {
        await client.publishAsync(topicOf(data), JSON.stringify(data), { qos, ...properties });
        return null;
      } catch (error) {
        journal.write("refused", { why: error.message });
        if (!five) throw error; // without an id, sending it anew would be another event
        await sleep(200);
      }
    }
  };
}

async function publish(door) {
  const journal = new Journal(door.journal);
  journal.write("started", { pid: process.pid });
  const send = door.door === "js-socketio" ? socketioDoor(door, journal) : mqttDoor(door, journal);
  const last = (what, field) => journal.earlier.filter((line) => line.is === what).reduce((most, line) => Math.max(most, line[field] + 1), 0);
  let tried = last("attempt", "upto");
  let acknowledged = last("ack", "n");
  while (acknowledged < tried || (!stopping && acknowledged < door.events)) {
    let count = tried - acknowledged;
    if (count === 0) {
      const due = Math.floor((Date.now() / 1000 - door.began) * door.rate) + 1 - acknowledged;
      if (due <= 0) {
        await sleep(20);
        continue;
      }
      count = Math.min(due, door.events - acknowledged);
    }
    count = Math.min(count, windows[door.door]);
    const first = acknowledged;
    journal.write("attempt", { first, upto: first + count - 1 });
    tried = Math.max(tried, first + count);
    const answers = Array.from({ length: count }, (_, i) => send(first + i, dataOf(door.door, first + i)));
    for (let i = 0; i < count; i++) journal.write("ack", { n: first + i, pos: await answers[i] });
    acknowledged = first + count;
  }
  journal.write("done");
}

await Promise.all(config.doors.map(publish));
