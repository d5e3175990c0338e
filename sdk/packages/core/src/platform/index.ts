/** What the client takes from its surroundings, by what is there and not by names. */
import type { ClientOptions, DeviceSignal, OutboxStore, Platform, Profile, TextStorage, Unsubscribe } from "../types.ts";
import { memoryOutbox, memoryStorage } from "./memory.ts";

export { memoryOutbox, memoryStorage };

/** The globals that may or may not be there. */
interface Surroundings {
  process?: { versions?: { node?: string } };
  navigator?: { product?: string; onLine?: boolean; connection?: EventTarget };
  document?: EventTarget & { visibilityState: string };
  matchMedia?: (query: string) => { matches: boolean };
  localStorage?: TextStorage;
  sessionStorage?: TextStorage;
  indexedDB?: IDBFactory;
  addEventListener?: EventTarget["addEventListener"];
  removeEventListener?: EventTarget["removeEventListener"];
}

const here = globalThis as Surroundings;
const isNode = !!here.process?.versions?.node && !here.document;

/** The platform that is found here. */
export function defaultPlatform({ folder }: Pick<ClientOptions, "folder"> = {}): Platform {
  return {
    profile: profileHere(),
    fetch: (input, init) => fetch(input, init),
    now: () => Date.now(),
    random: () => Math.random(),
    timer: (callback, ms) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    listen,
    storage: folder ? lazyFolder(folder) : (webStorage("localStorage") ?? memoryStorage()),
    tabStorage: webStorage("sessionStorage"),
    outbox: (name) => openOutbox(name, folder),
  };
}

/** `mobile` for React Native, and where the main pointer is coarse and cannot hover; `server` for Node. */
export function profileHere(): Profile {
  if (here.navigator?.product === "ReactNative") return "mobile";
  if (isNode) return "server";
  return here.matchMedia?.("(pointer: coarse) and (hover: none)").matches ? "mobile" : "desktop";
}

function listen(listener: (signal: DeviceSignal) => void): Unsubscribe {
  const ends: Unsubscribe[] = [];
  const on = (target: Partial<EventTarget> | undefined, name: string, handle: (event: Event) => void) => {
    target?.addEventListener?.(name, handle);
    ends.push(() => target?.removeEventListener?.(name, handle));
  };
  on(here, "online", () => listener("online"));
  on(here, "offline", () => listener("offline"));
  on(here, "pagehide", () => listener("shutdown"));
  // A page from the back/forward cache has slept, and its connections with it.
  on(here, "pageshow", (event) => (event as PageTransitionEvent).persisted && listener("changed"));
  on(here.document, "visibilitychange", () => listener(here.document?.visibilityState === "hidden" ? "hidden" : "visible"));
  on(here.document, "resume", () => listener("changed"));
  on(here.navigator?.connection, "change", () => listener("changed"));
  return () => ends.forEach((end) => end());
}

function webStorage(name: "localStorage" | "sessionStorage"): TextStorage | undefined {
  try {
    return isNode ? undefined : here[name];
  } catch {
    return undefined; // a private window may forbid the very look at it
  }
}

function lazyFolder(folder: string): TextStorage {
  const opened = import("./node.ts").then(({ folderStorage }) => folderStorage(folder));
  let ready: TextStorage | null = null;
  opened.then((storage) => (ready = storage), () => {}); // its users hear of it
  return {
    getItem: async (key) => (await opened).getItem(key),
    // Once it is open, at once: then the cursor is kept in the same step as the handler ran.
    setItem: (key, value) => (ready ? ready.setItem(key, value) : opened.then((storage) => storage.setItem(key, value))),
    removeItem: async (key) => (await opened).removeItem(key),
  };
}

async function openOutbox(name: string, folder?: string): Promise<OutboxStore> {
  if (folder) return (await import("./node.ts")).folderOutbox(folder, name);
  return here.indexedDB ? (await import("./indexeddb.ts")).indexedDbOutbox(here.indexedDB, name) : memoryOutbox();
}
