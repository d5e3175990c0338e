"use client";
import type { ClientEvents, EventType, GaplessError, Handler, PresenceMember, Room, Status } from "@gapless/core";
import { useCallback, useEffect, useInsertionEffect, useRef, useState, useSyncExternalStore } from "react";
import { useRealtime } from "./provider.tsx";
import type { Events } from "./types.ts";

const NOBODY: readonly PresenceMember[] = [];

/** How it looks before there is a connection: on a server, and while a page of a server comes to life. */
export const INITIAL_STATUS: Status = {
  connection: "connecting", transport: null, latency: null, lastEventAt: null, queueLength: 0,
  failovers: 0, lastFailover: null, error: null, retryAt: null,
};

/** The newest function, to be called from effects without being one of their dependencies. */
function useNewest<Function_>(value: Function_): { readonly current: Function_ } {
  const newest = useRef(value);
  useInsertionEffect(() => {
    newest.current = value;
  });
  return newest;
}

/** A room as a component sees it. */
export interface RoomState {
  /** Null where no room was named. */
  readonly room: Room<Events> | null;
  /** `joining` while there is no connection yet; `joined` means that its events are heard. */
  readonly state: "joining" | "joined" | "refused";
  /** Why it is refused: `forbidden`, `unknown_room`, … */
  readonly error: GaplessError | null;
}

/**
 * Join a room for as long as the component is there. `null` joins none.
 *
 *     const { state, error } = useRoom(`lead:${leadId}`);
 */
export function useRoom(name: string | null | undefined): RoomState {
  const client = useRealtime();
  const room = name == null ? null : client.room(name);
  const [known, setKnown] = useState<RoomState>({ room, state: "joining", error: null });
  useEffect(() => {
    if (!room) return;
    let over = false;
    const tell = (state: RoomState["state"], error: GaplessError | null = null) => {
      if (!over) setKnown({ room, state, error });
    };
    const leave = room.on("*", () => {});
    const unlisten = client.on("error", ({ error, room: about }) => about === room.name && error.code !== "handler_failed" && tell("refused", error));
    room.ready().then(() => tell("joined"), (error: GaplessError) => tell("refused", error));
    return () => {
      over = true;
      unlisten();
      leave();
    };
  }, [client, room]);
  return known.room === room ? known : { room, state: "joining", error: null };
}

/**
 * Handle the events of one type (`*`: of all) in a room, for as long as the component is there. The handler may be another
 * one at each rendering: the newest is called. The next event waits until it has returned, or its promise is settled.
 */
export function useEvent<Type extends EventType<Events>>(room: string | null | undefined, type: Type, handler: Handler<Events[Type]>): void;
export function useEvent(room: string | null | undefined, type: "*", handler: Handler): void;
export function useEvent(room: string | null | undefined, type: string, handler: Handler<never>): void {
  const client = useRealtime();
  const newest = useNewest(handler as Handler);
  useEffect(() => {
    if (room == null) return;
    return client.room(room).on(type as "*", (data, event) => newest.current(data, event));
  }, [client, room, type, newest]);
}

/**
 * Hear what the client tells beside events: a `gap` (load your state anew), an `error` that belongs to no call, and
 * what became of publications of an earlier life (`sent`).
 */
export function useClientEvent<Name extends keyof ClientEvents>(name: Name, listener: (about: ClientEvents[Name]) => void): void {
  const client = useRealtime();
  const newest = useNewest(listener);
  useEffect(() => client.on(name, (about) => newest.current(about)), [client, name, newest]);
}

/** Who is in a room, kept up to date. Nobody on a server, and where no room is named. */
export function usePresence(room: string | null | undefined): readonly PresenceMember[] {
  const client = useRealtime();
  const subscribe = useCallback((changed: () => void) => (room == null ? () => {} : client.presence(room).subscribe(changed)), [client, room]);
  return useSyncExternalStore(subscribe, () => (room == null ? NOBODY : client.presence(room).getSnapshot()), () => NOBODY);
}

/**
 * How the client is connected. A selector spares renderings: the component is rendered anew when what it returns
 * changes (by `Object.is`), so it should return a part of the status, or something simple made of it.
 *
 *     const offline = useConnectionStatus(({ connection }) => connection === "offline");
 */
export function useConnectionStatus(): Status;
export function useConnectionStatus<Selected>(select: (status: Status) => Selected): Selected;
export function useConnectionStatus<Selected>(select?: (status: Status) => Selected): Status | Selected {
  const { status } = useRealtime();
  const subscribe = useCallback((changed: () => void) => status.subscribe(changed), [status]);
  const read = (from: Status) => (select ? select(from) : from);
  return useSyncExternalStore(subscribe, () => read(status.getSnapshot()), () => read(INITIAL_STATUS));
}
