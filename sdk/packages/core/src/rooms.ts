/** Which rooms an event belongs to, as `/api/connect` describes them. */
import type { WireError } from "./errors.ts";

/** A room as `/api/connect` describes it. */
export interface RoomDescription {
  readonly room: string;
  /** The one MQTT filter that brings everything, at the gateway's own MQTT server. */
  readonly room_filter?: string;
  /** MQTT topic filters. */
  readonly filters?: readonly string[];
  /** Whether the topic filters bring everything. */
  readonly mqtt?: boolean;
  readonly match?: readonly { readonly pattern: string; readonly room: string }[];
  /** Why it cannot be heard. */
  readonly error?: WireError;
}

type Captures = Record<string, string>;

/** What one topic says: the captures, and for each room that it may belong to the template that decides. */
interface Found {
  captures: Captures;
  rooms: { name: string; template: string | null }[];
}

const TOPIC_ROOM = "topic:";
const MOST_TOPICS = 1000;

/** Finds the rooms of events; remembers topics, a bounded number of them. */
export class RoomMatcher {
  private readonly rooms: readonly RoomDescription[];
  private readonly cache = new Map<string, Found>();

  constructor(rooms: readonly RoomDescription[]) {
    this.rooms = rooms;
  }

  /** The names of the rooms that an event belongs to. */
  roomsOf(topic: string, data: unknown): string[] {
    const { captures, rooms } = this.look(topic);
    const found = new Set<string>();
    for (const { name, template } of rooms) {
      if (template === null || fill(template, captures, data) === name) found.add(name);
    }
    return [...found];
  }

  /** What the map's pattern takes from a topic (`{leadId: "123"}`). */
  captures(topic: string): Captures {
    return this.look(topic).captures;
  }

  private look(topic: string): Found {
    const known = this.cache.get(topic);
    if (known) return known;
    const found: Found = { captures: {}, rooms: [] };
    for (const { room, match = [] } of this.rooms) {
      if (room === TOPIC_ROOM + topic) found.rooms.push({ name: room, template: null });
      for (const { pattern, room: template } of match) {
        const captures = capture(pattern, topic);
        if (!captures) continue;
        found.captures = captures;
        found.rooms.push({ name: room, template });
      }
    }
    if (this.cache.size >= MOST_TOPICS) this.cache.clear();
    this.cache.set(topic, found);
    return found;
  }
}

/** What a pattern (`crm/leads/{leadId}/+`, `a/#`) takes from a topic; null where it does not fit. */
export function capture(pattern: string, topic: string): Captures | null {
  const levels = topic.split("/");
  const wanted = pattern.split("/");
  const captures: Captures = {};
  for (const [index, level] of wanted.entries()) {
    if (level === "#") return captures;
    const found = levels[index];
    if (found === undefined) return null;
    if (level.startsWith("{")) {
      if (!found) return null;
      captures[level.slice(1, -1)] = found;
    } else if (level !== "+" && level !== found) return null;
  }
  return levels.length === wanted.length ? captures : null;
}

/** A room's name from its template; null where a value is absent or cannot be part of a name. */
function fill(template: string, captures: Captures, data: unknown): string | null {
  let whole = true;
  const name = template.replace(/\{([^{}]*)\}/g, (_, key: string) => {
    const field = key.startsWith("data.") ? own(data, key.slice(5)) : captures[key];
    const text = typeof field === "number" || typeof field === "string" ? String(field) : "";
    whole &&= text.length > 0 && text.length <= 256 && !/[\s,]/.test(text);
    return text;
  });
  return whole ? name : null;
}

function own(data: unknown, key: string): unknown {
  return typeof data === "object" && data !== null && Object.hasOwn(data, key) ? (data as Record<string, unknown>)[key] : undefined;
}
