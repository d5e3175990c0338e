/** The application's token: asked for once at a time, and anew before it ends. */
import { GaplessError } from "./errors.ts";
import type { Platform } from "./types.ts";

export type TokenSource = string | (() => string | null | PromiseLike<string | null>) | undefined;

interface Claims {
  sub?: unknown;
  iat?: unknown;
  exp?: unknown;
}

/** What a JWT says (RFC 7519 §4.1), unverified: only the gateway decides by it. Empty for another token. */
export function claimsOf(token: string | null): Claims {
  try {
    const body = token?.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(body.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === "object" && claims !== null ? claims : {};
  } catch {
    return {};
  }
}

export class Tokens {
  /** Called with each token that replaces an earlier one before its end. */
  onRenewed: (token: string | null) => void = () => {};
  private readonly source: TokenSource;
  private readonly platform: Pick<Platform, "now" | "timer">;
  private token: string | null | undefined;
  private asking: Promise<string | null> | null = null;
  private cancel: () => void = () => {};

  constructor(source: TokenSource, platform: Pick<Platform, "now" | "timer">) {
    this.source = source;
    this.platform = platform;
  }

  /**
   * The token now.
   *
   * @throws GaplessError `token_failed`
   */
  get(): Promise<string | null> {
    return this.token === undefined ? this.ask() : Promise.resolve(this.token);
  }

  /** The gateway refused this token: the next `get` asks for another. */
  refuse(token: string | null): void {
    if (this.token === token) this.token = undefined;
  }

  close(): void {
    this.cancel();
  }

  private ask(): Promise<string | null> {
    return (this.asking ??= this.fetch().finally(() => (this.asking = null)));
  }

  private async fetch(): Promise<string | null> {
    let token: string | null;
    try {
      token = (typeof this.source === "function" ? await this.source() : this.source) || null; // an empty one is none
    } catch (cause) {
      throw new GaplessError("token_failed", `token() failed: ${String(cause)}`, { retryable: true, cause });
    }
    this.token = token;
    this.plan(token);
    return token;
  }

  /** At 80 % of its life, at the latest 10 s before its end, at the earliest in 1 s. */
  private plan(token: string | null): void {
    this.cancel();
    const { exp, iat } = claimsOf(token);
    if (typeof this.source !== "function" || typeof exp !== "number") return;
    const now = this.platform.now();
    const begin = typeof iat === "number" ? iat * 1000 : now;
    const due = Math.min(begin + 0.8 * (exp * 1000 - begin), exp * 1000 - 10_000);
    this.cancel = this.platform.timer(() => void this.renew(), Math.min(Math.max(due - now, 1000), 2 ** 31 - 1));
  }

  private async renew(): Promise<void> {
    const before = this.token;
    try {
      const token = await this.ask();
      if (token !== before) this.onRenewed(token);
    } catch {
      // Asked again when it is needed; until its end the old one still serves.
      this.cancel = this.platform.timer(() => void this.renew(), 5000);
    }
  }
}
