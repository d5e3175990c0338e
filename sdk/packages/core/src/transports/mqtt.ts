/** MQTT 5, by the stock mqtt.js. */
import library, { type IClientOptions, type IPublishPacket, type MqttClient } from "mqtt";
import { fromEnvelope, fromBase64, type Envelope } from "../envelope.ts";
import { GaplessError, toError } from "../errors.ts";
import type { RoomDescription } from "../rooms.ts";
import type { Incoming, OpenContext, Session, Sink, Transport } from "../transport.ts";

const KEEPALIVE = 30;
const BAD_CREDENTIALS = 0x86;
const NOT_AUTHORIZED = 0x87;

/** No session at the gateway: the cursor is the client's own, and `gapless-start` resumes from it. */
export const mqtt: Transport = ({ urls, token, bound }: OpenContext, sink: Sink, signal: AbortSignal) =>
  new Promise<Session>((resolve, reject) => {
    const url = urls["mqtt-websocket"] ?? urls["mqtt"];
    if (!url) return reject(new GaplessError("no_transport", "the gateway offers no MQTT", { retryable: true }));
    const options: IClientOptions = {
      protocolVersion: 5, clean: true, reconnectPeriod: 0, keepalive: KEEPALIVE, connectTimeout: bound, resubscribe: false,
      queueQoSZero: false, properties: { sessionExpiryInterval: 0 },
      ...(token === null ? {} : { username: "token", password: token }),
    };
    const client: MqttClient = library.connect(url, options);
    const hearing = new Set<string>();
    let started = false;
    let open = false;
    let reason: GaplessError | null = null;
    let pong: (() => void) | null = null;
    const close = () => void client.end(true);
    signal.addEventListener("abort", close, { once: true });

    async function subscribe(rooms: readonly RoomDescription[], after: string): Promise<void> {
      const wanted = new Set(rooms.flatMap(({ room_filter, filters = [] }) => room_filter ?? filters));
      const added = [...wanted].filter((filter) => !hearing.has(filter));
      const left = [...hearing].filter((filter) => !wanted.has(filter));
      for (const filter of added) hearing.add(filter);
      for (const filter of left) hearing.delete(filter);
      const start = started ? null : after;
      started = true;
      await Promise.all([added.length ? add(added, start) : null, left.length ? client.unsubscribeAsync(left) : null]);
    }

    function add(filters: string[], start: string | null): Promise<void> {
      const topics = Object.fromEntries(filters.map((filter) => [filter, { qos: 1 as const, rh: 2 }]));
      const properties = start === null ? {} : { properties: { userProperties: { "gapless-start": start } } };
      return new Promise((done, fail) =>
        client.subscribe(topics, properties as Parameters<MqttClient["subscribe"]>[1] & object, (error, granted, packet) => {
          const refused = error ?? granted?.find(({ qos }) => qos > 2);
          if (refused) return fail(new GaplessError("forbidden", `a filter is refused: ${error?.message ?? "not authorised"}`));
          const position = lastOf(packet?.properties?.userProperties?.["gapless-incomplete"]);
          if (position !== undefined) sink.gap(null);
          done();
        }),
      );
    }

    client.on("connect", () => {
      open = true;
      resolve({
        heartbeat: KEEPALIVE * 1000,
        subscribe,
        ping: () => new Promise<void>((done) => {
          pong = done;
          client.sendPing();
        }),
        close,
      });
    });
    client.on("packetreceive", ({ cmd }) => {
      sink.alive();
      if (cmd !== "pingresp") return;
      pong?.();
      pong = null;
    });
    client.on("message", (topic, payload, packet) => {
      const user = packet.properties?.userProperties ?? {};
      if (lastOf(user["gapless-incomplete"]) !== undefined) sink.gap(null);
      sink.event(read(topic, payload, packet));
    });
    client.on("disconnect", ({ reasonCode, properties }) => (reason = errorOf(reasonCode ?? 0, properties?.reasonString)));
    client.on("error", (error) => {
      const failure = "code" in error && typeof error.code === "number" ? errorOf(error.code, error.message) : toError(error);
      reason ??= failure;
      if (!open) reject(failure);
      close();
    });
    client.on("close", () => {
      const failure = reason ?? new GaplessError("network", "the connection ended", { retryable: true });
      if (open) sink.down(failure);
      else reject(failure);
    });
  });

function errorOf(code: number, message = `MQTT reason code 0x${code.toString(16)}`): GaplessError {
  const unauthorized = code === BAD_CREDENTIALS || code === NOT_AUTHORIZED;
  return new GaplessError(unauthorized ? "unauthorized" : "network", message, { retryable: !unauthorized });
}

/** The gateway's own property: it comes after those of the publisher, and is empty where it only takes theirs back. */
function lastOf(value: string | string[] | undefined): string | undefined {
  return (Array.isArray(value) ? value.at(-1) : value) || undefined;
}

/** See "MQTT payloads" in docs/client-protocol.md. */
export function read(topic: string, payload: Uint8Array, packet: Pick<IPublishPacket, "properties">): Incoming {
  const user = packet.properties?.userProperties ?? {};
  const id = lastOf(user["id"]) ?? "";
  const about = { id, topic, type: lastOf(user["type"]) ?? "message", time: lastOf(user["time"]) ?? "", position: lastOf(user["position"]) ?? null };
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    const data = payload.length ? new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength) : null;
    return { ...about, data, userId: null };
  }
  const envelope = json as Partial<Envelope> | null;
  if (typeof envelope !== "object" || envelope === null || Array.isArray(envelope)) return { ...about, data: json, userId: null };
  if (envelope.id === id && envelope.topic !== undefined) return { ...fromEnvelope(envelope as Envelope), ...about };
  const isEnvelope = ("data" in envelope || "data_base64" in envelope) && ("type" in envelope || "id" in envelope);
  if (!isEnvelope) return { ...about, data: json, userId: null };
  const data = envelope.data_base64 === undefined ? (envelope.data ?? null) : fromBase64(envelope.data_base64);
  return { ...about, data, userId: envelope.userId ?? null };
}
