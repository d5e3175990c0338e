// A small MQTT 5 client over WebSocket: connect with a session that outlives the connection,
// subscribe, publish and receive at QoS 0, 1 and 2. It exists so that this page needs nothing
// from elsewhere; in an application use mqtt.js. Section numbers are those of MQTT 5.0.

const CONNECT = 1, CONNACK = 2, PUBLISH = 3, PUBACK = 4, PUBREC = 5, PUBREL = 6, PUBCOMP = 7;
const SUBSCRIBE = 8, SUBACK = 9, PINGREQ = 12, PINGRESP = 13, DISCONNECT = 14;

const text = new TextEncoder();
const fromText = new TextDecoder();

export class Mqtt {
  #socket = null;
  #wanted = false;
  #attempt = 0;
  #timer = 0;
  #pings = 0;
  #pong = true;
  #rest = new Uint8Array();
  #nextId = 1;
  #waiting = new Map(); // packet id → {resolve, reject} of a publish or subscribe
  #received = new Set(); // packet ids of QoS 2 messages that were taken, until PUBREL (§4.3.3)

  /**
   * @param {object} options
   * @param {string} options.url  such as ws://host/mqtt
   * @param {string} options.clientId  names the session on the server
   * @param {string} options.token  sent as password
   * @param {(sessionPresent: boolean) => void} options.onConnect
   * @param {(message: {topic: string, payload: Uint8Array, properties: Map<string, string>}) => void} options.onMessage
   * @param {(reason: string) => void} options.onDown
   */
  constructor(options) {
    this.options = options;
    this.keepAlive = 30;
  }

  open() {
    this.#wanted = true;
    this.#connect();
  }

  /** Cut the connection without a DISCONNECT, as a dead network does: the session stays. */
  cut() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#drop("cut");
  }

  get connected() {
    return this.#socket?.ready === true;
  }

  /** Subscribe to filters, without their retained messages; resolves with the worst reason code (§3.9.3). */
  subscribe(filters, qos) {
    const id = this.#packetId();
    const retainHandling = 2 << 4; // §3.8.3.1: none at the subscription
    const wanted = filters.flatMap((filter) => [...string(filter), qos | retainHandling]);
    return this.#acknowledged(id, packet(SUBSCRIBE << 4 | 2, [...two(id), 0, ...wanted]));
  }

  /** Publish; resolves once the server has taken responsibility (QoS 1: PUBACK, 2: PUBCOMP). */
  publish(topic, payload, qos) {
    const id = qos ? this.#packetId() : 0;
    const head = [...string(topic), ...(qos ? two(id) : []), 0];
    const bytes = packet(PUBLISH << 4 | qos << 1, head, payload);
    if (qos) return this.#acknowledged(id, bytes);
    this.#send(bytes);
    return Promise.resolve(0);
  }

  #acknowledged(id, bytes) {
    if (!this.connected) return Promise.reject(new Error("MQTT is not connected"));
    this.#send(bytes);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #packetId() {
    do this.#nextId = (this.#nextId % 65535) + 1;
    while (this.#waiting.has(this.#nextId));
    return this.#nextId;
  }

  #connect() {
    const socket = new WebSocket(this.options.url, "mqtt");
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      const { clientId, token } = this.options;
      const flags = token ? 0x40 : 0; // password; Clean Start 0: take the session up again
      const expiry = [17, 0, 0, 0x0e, 0x10]; // Session Expiry Interval: an hour (§3.1.2.11.2)
      const body = [...string("MQTT"), 5, flags, ...two(this.keepAlive), expiry.length, ...expiry, ...string(clientId)];
      this.#send(packet(CONNECT << 4, [...body, ...(token ? string(token) : [])]));
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#read(new Uint8Array(data));
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#drop("connection lost");
    };
    this.#rest = new Uint8Array();
    this.#socket = socket;
  }

  #drop(reason) {
    const socket = this.#socket;
    this.#socket = null;
    clearInterval(this.#pings);
    socket?.close();
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
    this.options.onDown(reason);
    if (this.#wanted) {
      const longest = Math.min(10_000, 500 * 2 ** this.#attempt++);
      this.#timer = setTimeout(() => this.#connect(), Math.random() * longest); // full jitter
    }
  }

  #send(bytes) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(bytes);
  }

  #read(bytes) {
    // Packets do not heed the borders of WebSocket messages (§6.0).
    let data = this.#rest.length ? joined(this.#rest, bytes) : bytes;
    for (;;) {
      const [size, start] = variableInteger(data, 1);
      if (start === 0 || data.length < start + size) break;
      const socket = this.#socket;
      this.#packet(data[0], data.subarray(start, start + size));
      if (this.#socket !== socket) return; // dropped meanwhile
      data = data.subarray(start + size);
    }
    this.#rest = data.slice();
  }

  #packet(first, body) {
    const id = (body[0] << 8) | body[1];
    const reason = body[2] ?? 0;
    switch (first >> 4) {
      case CONNACK:
        if (body[1] !== 0) return this.#drop(`refused with reason code 0x${body[1].toString(16)}`);
        this.#socket.ready = true;
        this.#attempt = 0;
        this.#keepAlive();
        if (!(body[0] & 1)) this.#received.clear();
        return this.options.onConnect((body[0] & 1) === 1);
      case PUBLISH:
        return this.#publish(first, body);
      case PUBREL:
        this.#received.delete(id);
        return this.#send(packet(PUBCOMP << 4, two(id)));
      case PUBREC:
        if (reason < 0x80) return this.#send(packet((PUBREL << 4) | 2, two(id)));
        return this.#settle(id, reason);
      case PUBACK:
      case PUBCOMP:
        return this.#settle(id, reason);
      case SUBACK: {
        const [length, start] = variableInteger(body, 2);
        return this.#settle(id, Math.max(...body.subarray(start + length)));
      }
      case PINGRESP:
        this.#pong = true;
        return;
      case DISCONNECT:
        return this.#drop(`closed by the server, reason code 0x${(body[0] ?? 0).toString(16)}`);
    }
  }

  #settle(id, reason) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (reason >= 0x80) waiting?.reject(new Error(`MQTT reason code 0x${reason.toString(16)}`));
    else waiting?.resolve(reason);
  }

  #publish(first, body) {
    const qos = (first >> 1) & 3;
    const size = (body[0] << 8) | body[1];
    const topic = fromText.decode(body.subarray(2, 2 + size));
    let at = 2 + size;
    const id = qos ? (body[at] << 8) | body[at + 1] : 0;
    if (qos) at += 2;
    const [length, start] = variableInteger(body, at);
    const properties = userProperties(body.subarray(start, start + length));
    const payload = body.slice(start + length);
    if (qos < 2 || !this.#received.has(id)) this.options.onMessage({ topic, payload, properties });
    if (qos === 1) this.#send(packet(PUBACK << 4, two(id)));
    if (qos === 2) {
      this.#received.add(id);
      this.#send(packet(PUBREC << 4, two(id)));
    }
  }

  #keepAlive() {
    this.#pong = true;
    this.#pings = setInterval(() => {
      if (!this.#pong) return this.#drop("the server is silent");
      this.#pong = false;
      this.#send(packet(PINGREQ << 4, []));
    }, this.keepAlive * 500);
  }
}

const two = (number) => [number >> 8, number & 0xff];

function string(value) {
  const bytes = text.encode(value);
  return [...two(bytes.length), ...bytes];
}

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function packet(first, body, payload = new Uint8Array()) {
  const size = [];
  let left = body.length + payload.length;
  do {
    size.push((left % 128) | (left > 127 ? 0x80 : 0));
    left = Math.floor(left / 128);
  } while (left);
  return joined([first, ...size, ...body], payload);
}

// A variable byte integer (§1.5.5): its value, and where what follows begins; 0 where it is not whole yet.
function variableInteger(bytes, at) {
  let value = 0;
  for (let shift = 0; shift < 4; shift++) {
    if (at >= bytes.length) return [0, 0];
    const byte = bytes[at++];
    value += (byte & 0x7f) * 128 ** shift;
    if (byte < 0x80) return [value, at];
  }
  throw new Error("malformed MQTT length");
}

// The user properties of a PUBLISH (§3.3.2.3); what the others hold is passed by.
function userProperties(bytes) {
  const found = new Map();
  let at = 0;
  const read = () => {
    const size = (bytes[at] << 8) | bytes[at + 1];
    at += 2 + size;
    return fromText.decode(bytes.subarray(at - size, at));
  };
  while (at < bytes.length) {
    const kind = bytes[at++];
    if (kind === 38) found.set(read(), read()); // User Property
    else if (kind === 1) at += 1; // Payload Format Indicator
    else if (kind === 2) at += 4; // Message Expiry Interval
    else if (kind === 35) at += 2; // Topic Alias
    else if (kind === 11) [, at] = variableInteger(bytes, at); // Subscription Identifier
    else if (kind === 3 || kind === 8 || kind === 9) read(); // Content Type, Response Topic, Correlation Data
    else throw new Error(`unknown MQTT property ${kind}`);
  }
  return found;
}
