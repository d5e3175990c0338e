"use client";
import type { ConnectionState, Status, TransportName } from "@gapless/core";
import { useEffect, useId, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { useConnectionStatus } from "./hooks.ts";
import { useRealtime } from "./provider.tsx";

/** How good the connection is; null while that is not known. */
export type Quality = "good" | "fair" | "poor" | null;

const TRANSPORTS: Record<TransportName, string> = { socketio: "Socket.IO", mqtt: "MQTT", sse: "Server-sent events", poll: "Long polling" };

/** The texts, in English; give others as `labels`. */
export const LABELS = {
  states: {
    connecting: "Connecting", catching_up: "Catching up", live: "Live", degraded: "Live, on a fallback", offline: "Offline", closed: "Closed",
  } satisfies Record<ConnectionState, string>,
  qualities: { good: "Good", fair: "Fair", poor: "Poor", unknown: "Not measured yet" },
  details: "Connection", transport: "Transport", quality: "Quality", queue: "Waiting to be sent", lastEvent: "Last event",
  failover: "Last fail-over", failovers: "Fail-overs", retry: "Next attempt", none: "None", never: "None yet", now: "just now", reconnect: "Reconnect",
  ago: (seconds: number) => (seconds < 90 ? `${seconds} s ago` : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`),
  in: (seconds: number) => `in ${seconds} s`,
};
export type Labels = typeof LABELS;

export interface ConnectionStatusProps {
  /** Texts in place of the English ones. */
  labels?: Partial<Labels>;
  /** Whether the panel is open at first. */
  defaultOpen?: boolean;
  /** The edge of the badge at which the panel begins; by default the end, for a badge at the end of a bar. */
  align?: "start" | "end";
  /** Added to `gapless-status`. */
  className?: string;
}

/** By the round trip: good up to 150 ms, fair up to 500 ms. */
export function qualityOf({ connection, latency }: Pick<Status, "connection" | "latency">): Quality {
  if (latency === null || connection === "offline" || connection === "closed" || connection === "connecting") return null;
  return latency <= 150 ? "good" : latency <= 500 ? "fair" : "poor";
}

/**
 * Shows how the application is connected: a badge that opens a panel with transport, quality, queue, the last fail-over and
 * a button to reconnect. Import `@gapless/react/status.css`, or style the classes yourself.
 */
export function ConnectionStatus({ labels, defaultOpen = false, align = "end", className = "" }: ConnectionStatusProps): ReactNode {
  const texts = { ...LABELS, ...labels };
  const status = useConnectionStatus();
  const [open, setOpen] = useState(defaultOpen);
  const badge = useRef<HTMLButtonElement>(null);
  const panel = useId();
  const state = texts.states[status.connection];
  const via = status.transport ? TRANSPORTS[status.transport] : null;
  const close = (event: KeyboardEvent) => {
    if (event.key !== "Escape" || !open) return;
    event.stopPropagation();
    setOpen(false);
    badge.current?.focus();
  };
  return (
    <div className={`gapless-status ${className}`.trim()} data-state={status.connection} data-align={align} onKeyDown={close}>
      <button ref={badge} type="button" className="gapless-status-badge" aria-expanded={open} aria-controls={open ? panel : undefined} onClick={() => setOpen(!open)}>
        <span className="gapless-status-dot" aria-hidden="true" />
        {/* The one part that is read out by itself; the figures, which change all the time, are not. */}
        <span role="status" aria-live="polite" className="gapless-status-state">{state}</span>
        {via && <span className="gapless-status-via">{via}</span>}
        <Bars quality={qualityOf(status)} />
        {status.queueLength > 0 && <span className="gapless-status-count" title={texts.queue}>{status.queueLength}</span>}
      </button>
      {open && <Panel id={panel} status={status} texts={texts} via={via} />}
    </div>
  );
}

function Bars({ quality }: { quality: Quality }): ReactNode {
  return <span className="gapless-status-bars" data-quality={quality ?? "unknown"} aria-hidden="true"><i /><i /><i /></span>;
}

function Panel({ id, status, texts, via }: { id: string; status: Status; texts: Labels; via: string | null }): ReactNode {
  const client = useRealtime();
  const now = useNow();
  const ago = (at: number) => {
    const seconds = Math.max(0, Math.round((now - at) / 1000));
    return <time dateTime={new Date(at).toISOString()}>{seconds < 2 ? texts.now : texts.ago(seconds)}</time>;
  };
  const { error, lastFailover, latency, lastEventAt, queueLength, failovers, retryAt } = status;
  const quality = qualityOf(status);
  return (
    <section id={id} className="gapless-status-panel" aria-label={texts.details}>
      <dl>
        <Line name={texts.transport}>{via ?? texts.none}</Line>
        <Line name={texts.quality}>
          {quality ? texts.qualities[quality] : latency === null ? texts.qualities.unknown : texts.none}
          {quality && latency !== null && <small> {Math.round(latency)} ms</small>}
        </Line>
        <Line name={texts.queue}>{queueLength}</Line>
        <Line name={texts.lastEvent}>{lastEventAt === null ? texts.never : ago(lastEventAt)}</Line>
        <Line name={texts.failover}>
          {lastFailover ? <>{TRANSPORTS[lastFailover.from]} → {TRANSPORTS[lastFailover.to]}<small className="gapless-status-failover">{ago(lastFailover.at)}, {lastFailover.reason}</small></> : texts.none}
        </Line>
        {failovers > 1 && <Line name={texts.failovers}>{failovers}</Line>}
        {retryAt !== null && retryAt > now && <Line name={texts.retry}>{texts.in(Math.ceil((retryAt - now) / 1000))}</Line>}
      </dl>
      {error && <p className="gapless-status-error"><strong>{error.message}</strong>{error.hint && <> {error.hint}</>} <code>{error.code}</code></p>}
      <button type="button" className="gapless-status-reconnect" onClick={() => client.reconnect()} disabled={status.connection === "closed"}>{texts.reconnect}</button>
    </section>
  );
}

function Line({ name, children }: { name: string; children: ReactNode }): ReactNode {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}

/** The time, each second: for an open panel alone. */
function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
