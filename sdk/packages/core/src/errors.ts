/** Errors with a code that the application can act on. */

/** The body that every door of the gateway sends. */
export interface WireError {
  code: string;
  message: string;
  retryable?: boolean;
  hint?: string;
  details?: Record<string, unknown>;
}

/** Codes of the client's own; the gateway's pass through (docs/wire-formats.md). */
export type ClientErrorCode =
  | "network"
  | "timeout"
  | "not_a_gateway"
  | "no_transport"
  | "token_failed"
  | "handler_failed"
  | "storage_failed"
  | "outbox_full"
  | "offline"
  | "invalid_request"
  | "closed";

/**
 * What went wrong. Decide by `code` and `retryable`; `message` and `hint` are for people.
 */
export class GaplessError extends Error {
  override readonly name = "GaplessError";
  /** A code of the client or of the gateway. */
  readonly code: ClientErrorCode | (string & {});
  /** Whether the same may succeed later. */
  readonly retryable: boolean;
  /** How to mend it. */
  readonly hint: string | undefined;
  /** The data behind it, such as `size` and `limit`. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ClientErrorCode | (string & {}), message: string, more: Partial<Omit<WireError, "code" | "message">> & { cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.retryable = more.retryable ?? false;
    this.hint = more.hint;
    this.details = more.details ?? {};
  }
}

/** The error of a gateway's answer. */
export function fromWire(wire: WireError): GaplessError {
  return new GaplessError(wire.code, wire.message, wire);
}

/** Anything that was thrown, as an error of ours: by default the connection's. */
export function toError(cause: unknown, code: ClientErrorCode = "network"): GaplessError {
  if (cause instanceof GaplessError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new GaplessError(code, message || code, { retryable: code === "network", cause });
}
