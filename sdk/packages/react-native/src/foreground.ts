import type { Observable } from "@gapless/core";
import type { AppStateLike } from "./platform.ts";

/** Whether the application should be connected. */
export interface Foreground extends Observable<boolean> {
  /** Follow the application no more. */
  end(): void;
}

/**
 * True in the foreground, and for a while after it was left: to close the connection in the background, so that the
 * gateway knows that a push is needed, and the radio sleeps.
 *
 * @param closeAfter milliseconds in the background; keep it below the 30 s or so that iOS grants.
 */
export function foreground(AppState: AppStateLike, { closeAfter = 20_000 }: { closeAfter?: number } = {}): Foreground {
  const listeners = new Set<() => void>();
  let connected = AppState.currentState !== "background";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const set = (value: boolean) => {
    if (value === connected) return;
    connected = value;
    for (const listener of [...listeners]) listener();
  };
  const subscription = AppState.addEventListener("change", (state) => {
    clearTimeout(timer);
    if (state === "active") set(true);
    else if (state === "background") timer = setTimeout(() => set(false), closeAfter);
  });
  return {
    getSnapshot: () => connected,
    subscribe(listener) {
      const own = () => listener();
      listeners.add(own);
      return () => void listeners.delete(own);
    },
    end() {
      clearTimeout(timer);
      subscription.remove();
    },
  };
}
