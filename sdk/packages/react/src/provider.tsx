"use client";
import { createClient, type Client, type ClientOptions } from "@gapless/core";
import { createContext, useContext, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import type { Events } from "./types.ts";

const Context = createContext<Client<Events> | null>(null);

/** A client of your own (yours to close), or what one is made of. */
export type RealtimeProviderProps = { children?: ReactNode } & (
  | { client: Client<Events>; options?: undefined; paused?: undefined }
  | {
    client?: undefined;
    /** Read when the URL or the user changes; `token` may be another function at each rendering: the newest is asked. */
    options: ClientOptions;
    /** Close the connection, and connect anew when it ends: for a phone's background. Nothing is lost meanwhile. */
    paused?: boolean;
  }
);

/**
 * Gives the components below a client. One made of `options` is closed when the provider is gone, and replaced when
 * the URL or the user changes. Making one connects nothing: that happens with the first room, in the browser.
 */
export function RealtimeProvider(props: RealtimeProviderProps): ReactNode {
  return props.client ? <Context.Provider value={props.client}>{props.children}</Context.Provider> : <Owner {...props} />;
}

interface Held {
  key: string;
  client: Client<Events>;
}

function Owner({ options, paused = false, children }: Extract<RealtimeProviderProps, { client?: undefined }>): ReactNode {
  const newest = useRef(options);
  useEffect(() => {
    newest.current = options;
  });
  const key = `${paused ? "paused" : ""} ${options.user ?? ""} ${options.url}`;
  const make = (): Held => {
    const token = options.token === undefined ? undefined : () => tokenOf(newest.current.token);
    const client = createClient<Events>({ ...options, token });
    if (paused) void client.close();
    return { key, client };
  };
  const [held, setHeld] = useState(make);
  if (held.key !== key) setHeld(make());
  const { client } = held;
  // StrictMode ends an effect and begins it again at once: the client is closed only where nothing began again.
  const closing = useMemo(() => ({ timer: undefined as ReturnType<typeof setTimeout> | undefined }), [client]);
  useEffect(() => {
    clearTimeout(closing.timer);
    return () => {
      closing.timer = setTimeout(() => void client.close(), 0);
    };
  }, [client, closing]);
  return <Context.Provider value={client}>{children}</Context.Provider>;
}

function tokenOf(token: ClientOptions["token"]): string | null | PromiseLike<string | null> {
  return typeof token === "function" ? token() : (token ?? null);
}

/**
 * The client: to publish, to reconnect, or whatever no hook does.
 *
 * @throws Error there is no `RealtimeProvider` above.
 */
export function useRealtime(): Client<Events> {
  const client = useContext(Context);
  if (!client) throw new Error("There is no <RealtimeProvider> above this component: wrap the application in one.");
  return client;
}
