/** What the snippets of the documents take from their reader's application. */
import type { Client, ClientOptions, createClient as create } from "@gapless/core";
import type { ReactElement } from "react";

declare global {
  const rt: Client;
  const createClient: typeof create;
  const options: ClientOptions;
  const apiKey: string;
  const userId: string;
  const session: { token(): Promise<string> };
  const App: () => ReactElement;
  const badge: (...figures: unknown[]) => void;
  const show: (people: readonly string[]) => void;
  const reload: () => void;
  const undo: (id: string, error: Error) => void;
  const settle: (id: string, published: unknown) => void;
  const showNotification: (id: string, data: unknown) => void;
  const messaging: () => { setBackgroundMessageHandler(handler: () => Promise<void>): void };
}
