// The four clients of this page, behind one face: `connect()`, `cut()`, and what they tell:
//   onState(state, words)   "connecting", "connected" or "cut"
//   onEvent({id, type, topic, data, position})
// Each keeps its own place in the log and takes it up again after a cut.

import { Mqtt } from "./mqtt.js";
import { SocketIo } from "./socketio.js";

const fromText = new TextDecoder();
const socketBase = () => location.origin.replace(/^http/, "ws");

class Lane {
  constructor(settings, tell) {
    this.settings = settings; // {rooms: string[], token: string}
    this.tell = tell;
  }

  get query() {
    return `rooms=${encodeURIComponent(this.settings.rooms.join(","))}`;
  }
}

class SocketIoLane extends Lane {
  static key = "socketio";
  static title = "Socket.IO";

  connect() {
    this.client ??= new SocketIo({
      url: `${socketBase()}/socket.io/`,
      auth: this.settings.token ? { token: this.settings.token } : {},
      onConnect: (recovered) => this.#subscribe(recovered),
      onEvent: (name, [data, meta, position]) => {
        if (!meta?.id) return; // a control event
        this.position = position ?? this.position;
        this.tell.onEvent({ id: meta.id, type: name, topic: meta.topic, data, position });
      },
      onDown: (reason) => this.tell.onState(reason === "cut" ? "cut" : "connecting", reason),
    });
    this.tell.onState("connecting", "connecting");
    this.client.open();
  }

  // After a recovery the server has put us into our rooms already. Otherwise we say from where on.
  async #subscribe(recovered) {
    try {
      const answer = await this.client.request("subscribe", { rooms: this.settings.rooms, after: this.position });
      if (!answer.ok) throw new Error(answer.error.message);
      this.position ??= answer.position;
      this.tell.onState("connected", recovered ? "connected, recovered" : "connected");
    } catch (error) {
      this.tell.onState("connecting", error.message);
    }
  }

  cut() {
    this.client.cut();
  }

  async publish(event) {
    const answer = await this.client.request("publish", event);
    if (!answer.ok) throw new Error(answer.error.message);
  }
}

class MqttLane extends Lane {
  static key = "mqtt";
  static title = "MQTT / WebSocket";

  async connect() {
    this.tell.onState("connecting", "connecting");
    this.filters ??= await this.#filters();
    this.client ??= new Mqtt({
      url: `${socketBase()}/mqtt`,
      clientId: `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
      token: this.settings.token,
      onConnect: (present) => this.#subscribe(present),
      onMessage: (message) => this.tell.onEvent(readMessage(message)),
      onDown: (reason) => this.tell.onState(reason === "cut" ? "cut" : "connecting", reason),
    });
    this.client.open();
  }

  async #filters() {
    const answer = await getJson(`/api/connect?${this.query}`, this.settings.token);
    return [...new Set(answer.rooms.flatMap((room) => room.filters))];
  }

  // A session that is still there has its subscriptions, and brings what we missed.
  async #subscribe(present) {
    try {
      if (!present) await this.client.subscribe(this.filters, 1);
      this.tell.onState("connected", present ? "connected, session resumed" : "connected");
    } catch (error) {
      this.tell.onState("connecting", error.message);
    }
  }

  cut() {
    this.client?.cut();
  }

  publish(event, qos) {
    const { topic, ...envelope } = event;
    return this.client.publish(topic, new TextEncoder().encode(JSON.stringify(envelope)), qos);
  }
}

class SseLane extends Lane {
  static key = "sse";
  static title = "Server-sent events";

  connect() {
    const token = this.settings.token ? `&token=${encodeURIComponent(this.settings.token)}` : "";
    const after = this.position ? `&after=${this.position}` : "";
    const source = (this.source = new EventSource(`/api/stream?${this.query}${token}${after}`));
    this.tell.onState("connecting", "connecting");
    source.onopen = () => this.tell.onState("connected", "connected");
    source.onerror = () => this.tell.onState("connecting", source.readyState === 2 ? "refused" : "connecting again");
    for (const name of ["gapless.position", "gapless.incomplete"]) {
      source.addEventListener(name, ({ lastEventId }) => (this.position = lastEventId));
    }
    source.onmessage = ({ data, lastEventId }) => {
      this.tell.onEvent(JSON.parse(data));
      this.position = lastEventId || this.position;
    };
  }

  cut() {
    this.source.close();
    this.tell.onState("cut", "cut");
  }
}

class PollLane extends Lane {
  static key = "poll";
  static title = "Long polling";

  connect() {
    this.abort = new AbortController();
    this.#poll(this.abort.signal);
  }

  async #poll(signal) {
    let pause = 500;
    this.tell.onState("connecting", "connecting");
    while (!signal.aborted) {
      try {
        // The first request only asks where the log ends; the others wait there for what comes.
        const more = this.position ? `&after=${this.position}&wait=25` : "";
        const answer = await getJson(`/api/events?${this.query}${more}`, this.settings.token, signal);
        this.tell.onState("connected", "connected");
        for (const event of answer.events) this.tell.onEvent(event);
        this.position = answer.position;
        pause = 500;
      } catch (error) {
        if (signal.aborted) return;
        this.tell.onState("connecting", error.message);
        await new Promise((resolve) => setTimeout(resolve, Math.random() * pause));
        pause = Math.min(10_000, pause * 2);
      }
    }
  }

  cut() {
    this.abort.abort();
    this.tell.onState("cut", "cut");
  }
}

export const LANES = [SocketIoLane, MqttLane, SseLane, PollLane];

export async function getJson(path, token, signal) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return readAnswer(await fetch(path, { headers, signal, cache: "no-store" }));
}

export async function readAnswer(response) {
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error.message);
  return answer;
}

// What an MQTT client published comes as it was; id, type and position are user properties.
function readMessage({ topic, payload, properties }) {
  let document = null;
  try {
    document = JSON.parse(fromText.decode(payload));
  } catch {
    // bytes
  }
  const envelope = document !== null && typeof document === "object" && "data" in document;
  return {
    id: properties.get("id") ?? document?.id,
    type: properties.get("type") ?? document?.type,
    topic,
    data: envelope ? document.data : (document ?? `${payload.length} bytes`),
    position: properties.get("position") ?? document?.position ?? null,
  };
}
