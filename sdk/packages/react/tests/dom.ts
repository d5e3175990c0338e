/** A document for React, and a client whose every answer a test decides. */
import type { Client, ClientEvents, GaplessError, Handler, PresenceMember, RealtimeEvent, Status } from "@gapless/core";
import { Window } from "happy-dom";
import { INITIAL_STATUS } from "../dist/hooks.js";

const window = new Window({ url: "http://localhost/" });
Object.assign(globalThis, { window, document: window.document, HTMLIFrameElement: window.HTMLIFrameElement, IS_REACT_ACT_ENVIRONMENT: true });

const { act, createElement } = await import("react");
const { createRoot, hydrateRoot } = await import("react-dom/client");
export { act, createElement, hydrateRoot };

export async function render(element: React.ReactNode) {
  const container = document.createElement("div");
  document.body.append(container);
  const root = createRoot(container);
  await act(async () => root.render(element));
  return {
    container,
    rerender: (next: React.ReactNode) => act(async () => root.render(next)),
    unmount: () => act(async () => root.unmount()),
  };
}

function settle() {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}

class Value<T> {
  listeners = new Set<() => void>();
  value: T;
  constructor(value: T) {
    this.value = value;
  }
  getSnapshot(): T {
    return this.value;
  }
  subscribe(listener: () => void) {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  set(value: T) {
    this.value = value;
    for (const listener of [...this.listeners]) listener();
  }
}

export class FakeRoom {
  handlers = new Set<[string, Handler]>();
  joins = 0;
  answer = settle();
  readonly name: string;
  constructor(name: string) {
    this.name = name;
    this.answer.promise.catch(() => {});
  }
  on(type: string, handler: Handler) {
    const own: [string, Handler] = [type, handler];
    this.handlers.add(own);
    this.joins += 1;
    return () => void this.handlers.delete(own);
  }
  ready = () => this.answer.promise;
  send(type: string, data: unknown): unknown[] {
    const event = { id: "1", type, topic: "t", data, time: "", userId: null, position: null } as RealtimeEvent;
    return [...this.handlers].filter(([wanted]) => wanted === type || wanted === "*").map(([, handler]) => handler(data, event));
  }
}

/** Methods that lose their `this`, as a careless hook would call them, fail here. */
export class FakeClient {
  status = new Value<Status>(INITIAL_STATUS);
  rooms = new Map<string, FakeRoom>();
  presences = new Map<string, Value<readonly PresenceMember[]>>();
  listeners = new Set<[string, (about: never) => void]>();
  reconnects = 0;
  room(name: string) {
    return this.rooms.get(name) ?? this.rooms.set(name, new FakeRoom(name)).get(name)!;
  }
  presence(room: string) {
    return this.presences.get(room) ?? this.presences.set(room, new Value<readonly PresenceMember[]>([])).get(room)!;
  }
  on(name: string, listener: (about: never) => void) {
    const own: [string, (about: never) => void] = [name, listener];
    this.listeners.add(own);
    return () => void this.listeners.delete(own);
  }
  emit<Name extends keyof ClientEvents>(name: Name, about: ClientEvents[Name]) {
    for (const [wanted, listener] of [...this.listeners]) if (wanted === name) (listener as (about: unknown) => void)(about);
  }
  reconnect() {
    this.reconnects += 1;
  }
  become(changes: Partial<Status>) {
    this.status.set({ ...this.status.value, ...changes });
  }
  get client(): Client {
    return this as unknown as Client;
  }
}

export const failure = (code: string) => Object.assign(new Error(code), { code }) as unknown as GaplessError;
