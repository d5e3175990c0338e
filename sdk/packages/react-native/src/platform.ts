import type { DeviceSignal, Platform, TextStorage, Unsubscribe } from "@gapless/core";
import { storageOutbox } from "./outbox.ts";

/** What is used of React Native's `AppState`. */
export interface AppStateLike {
  readonly currentState: string | null;
  addEventListener(type: "change", listener: (state: string) => void): { remove(): void };
}

/** What is used of a state of `@react-native-community/netinfo`. */
export interface NetInfoStateLike {
  readonly type: string;
  readonly isConnected: boolean | null;
  readonly details?: unknown;
}

/** What is used of `@react-native-community/netinfo`. */
export interface NetInfoLike {
  addEventListener(listener: (state: NetInfoStateLike) => void): () => void;
}

export interface NativeParts {
  AppState: AppStateLike;
  /** Without it, only a return to the foreground and silence tell of another network. */
  NetInfo?: NetInfoLike;
  /** `@react-native-async-storage/async-storage`, or anything with its three basic functions, such as MMKV wrapped. */
  AsyncStorage: TextStorage;
}

/** The parts of the platform that a phone has: pass them as `platform` to `createClient`. */
export function nativePlatform({ AppState, NetInfo, AsyncStorage }: NativeParts): Pick<Platform, "profile" | "listen" | "storage" | "outbox"> {
  return {
    profile: "mobile",
    storage: AsyncStorage,
    outbox: (name) => storageOutbox(AsyncStorage, name),
    listen: (listener) => {
      const ends = [followApp(AppState, listener), NetInfo ? followNetwork(NetInfo, listener) : () => {}];
      return () => ends.forEach((end) => end());
    },
  };
}

function followApp(AppState: AppStateLike, listener: (signal: DeviceSignal) => void): Unsubscribe {
  let away = AppState.currentState === "background";
  const subscription = AppState.addEventListener("change", (state) => {
    if (state === "background") {
      away = true;
      listener("hidden");
    } else if (state === "active" && away) { // `inactive` is a call, or the switcher: nothing slept
      away = false;
      // The system may have frozen the process, and closed its sockets without a word.
      listener("visible");
    }
  });
  return () => subscription.remove();
}

function followNetwork(NetInfo: NetInfoLike, listener: (signal: DeviceSignal) => void): Unsubscribe {
  let before: string | null = null;
  return NetInfo.addEventListener((state) => {
    const now = networkOf(state);
    const was = before;
    before = now;
    if (was === now) return;
    if (now === "none") listener("offline");
    else if (was === "none") listener("online");
    else if (was !== null) listener("changed"); // the first word tells only how it is
  });
}

/** A text that differs where sockets of one would not live on in the other; not by signal strength. */
function networkOf({ type, isConnected, details }: NetInfoStateLike): string {
  if (isConnected === false) return "none";
  const { ssid, bssid, ipAddress } = (details ?? {}) as Record<string, unknown>;
  return [type, ssid ?? bssid ?? "", ipAddress ?? ""].join(" ");
}
