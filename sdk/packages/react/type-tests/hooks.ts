/** What the public types allow, and what they do not: compiled against the built package, never run. */
import type { Client, GaplessError, PresenceMember, RealtimeEvent, Status } from "@gapless/core";
import { RealtimeProvider, useConnectionStatus, useEvent, usePresence, useRealtime, useRoom } from "@gapless/react";
import { createElement } from "react";

interface Events {
  "lead:updated": { leadId: string; name: string };
}
declare module "@gapless/react" {
  interface Register {
    events: Events;
  }
}

type Equal<One, Other> = (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;
function check<_True extends true>(): void {}

export function Part(): null {
  check<Equal<ReturnType<typeof useRealtime>, Client<Events>>>();
  useEvent("lead:1", "lead:updated", (data, event) => {
    check<Equal<typeof data, { leadId: string; name: string }>>();
    check<Equal<typeof event, RealtimeEvent<{ leadId: string; name: string }>>>();
  });
  useEvent(null, "*", (data) => check<Equal<typeof data, unknown>>());
  // @ts-expect-error no such event
  useEvent("lead:1", "lead:upated", () => {});
  // @ts-expect-error the data lacks a field
  void useRealtime().publish("lead:updated", { leadId: "1" });
  check<Equal<ReturnType<typeof usePresence>, readonly PresenceMember[]>>();
  const { error } = useRoom("lead:1");
  check<Equal<typeof error, GaplessError | null>>();
  const status = useConnectionStatus();
  check<Equal<typeof status, Status>>();
  const live = useConnectionStatus(({ connection }) => connection === "live");
  check<Equal<typeof live, boolean>>();
  return null;
}

createElement(RealtimeProvider, { options: { url: "https://events.example.com" }, paused: true });
// @ts-expect-error either a client, or what one is made of
createElement(RealtimeProvider, {});
