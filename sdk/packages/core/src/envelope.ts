/** Events as the gateway's JSON has them. */
import type { Incoming } from "./transport.ts";

/** The fields of an envelope that a client reads; others are captures of the topic. */
export interface Envelope {
  id: string;
  type: string;
  topic: string;
  data?: unknown;
  data_base64?: string;
  time: string;
  userId?: string | null;
  position?: string | null;
}

export function fromEnvelope(envelope: Envelope): Incoming {
  const { id, type, topic, data = null, data_base64, time, userId = null, position = null } = envelope;
  return { id, type, topic, data: data_base64 === undefined ? data : fromBase64(data_base64), time, userId, position };
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
