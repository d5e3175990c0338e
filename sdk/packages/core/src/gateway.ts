/** The gateway's HTTP doors over `fetch`. */
import { fromEnvelope, type Envelope } from "./envelope.ts";
import { fromWire, GaplessError, toError, type WireError } from "./errors.ts";
import { bounded } from "./time.ts";
import type { Tokens } from "./tokens.ts";
import type { Description, HistoryPage, HttpDoor } from "./transport.ts";
import type { Platform, Published } from "./types.ts";

interface RequestOptions {
  body?: string;
  bound: number;
  signal?: AbortSignal | undefined;
}

export class Gateway implements HttpDoor {
  readonly url: string;
  private readonly platform: Platform;
  private readonly tokens: Tokens;

  constructor(url: string, platform: Platform, tokens: Tokens) {
    this.url = url;
    this.platform = platform;
    this.tokens = tokens;
  }

  async describe(rooms: readonly string[], bound: number, signal?: AbortSignal): Promise<Description> {
    const query = rooms.length ? `?partial=1&${roomsQuery(rooms)}` : "";
    const answer = await this.json<Description>(`/api/connect${query}`, { bound, signal });
    if (typeof answer.position !== "string" || !Array.isArray(answer.transports)) throw this.stranger();
    return answer;
  }

  async history(rooms: readonly string[], after: string, limit: number, bound: number, signal?: AbortSignal): Promise<HistoryPage> {
    const path = `/api/events?${roomsQuery(rooms)}&after=${encodeURIComponent(after)}&limit=${limit}`;
    const page = await this.json<{ position: string; complete: boolean; events: Envelope[] }>(path, { bound, signal });
    if (!Array.isArray(page.events)) throw this.stranger();
    return { ...page, events: page.events.map(fromEnvelope) };
  }

  async publish(bodies: readonly string[], bound: number): Promise<Published[]> {
    const answer = await this.json<{ events: Published[] }>("/api/events", { body: `[${bodies.join(",")}]`, bound });
    if (!Array.isArray(answer.events)) throw this.stranger();
    return answer.events;
  }

  /** A request with the token; one that is refused is asked again, once, with a fresh one. Rejects for any answer but success. */
  async fetch(path: string, signal?: AbortSignal, body?: string): Promise<Response> {
    const token = await this.tokens.get();
    try {
      return await this.once(path, token, signal, body);
    } catch (error) {
      if (!(error instanceof GaplessError && error.code === "unauthorized")) throw error;
      this.tokens.refuse(token);
      const fresh = await this.tokens.get();
      if (fresh === token) throw error;
      return this.once(path, fresh, signal, body);
    }
  }

  private async once(path: string, token: string | null, signal?: AbortSignal, body?: string): Promise<Response> {
    const headers: Record<string, string> = {};
    if (token !== null) headers["authorization"] = `Bearer ${token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    let response: Response;
    try {
      // `cache` and `credentials` are those of a request that is nobody's but ours.
      response = await this.platform.fetch(this.url + path, {
        method, headers, signal: signal ?? null, cache: "no-store", credentials: "omit", ...(body === undefined ? {} : { body }),
      });
    } catch (cause) {
      const { message } = toError(cause); // "Failed to fetch", in the words of a browser
      throw new GaplessError("network", `the gateway cannot be reached: ${message}`, { retryable: true, cause });
    }
    if (!response.ok) throw await this.refusal(response);
    return response;
  }

  private async refusal(response: Response): Promise<GaplessError> {
    const body: unknown = await response.json().catch(() => null);
    const wire = (body as { error?: WireError } | null)?.error;
    if (typeof wire?.code === "string") return fromWire(wire);
    // A proxy that has lost its gateway is a network that fails; another server is none.
    const { status } = response;
    if (status === 413) return new GaplessError("payload_too_large", "a proxy before the gateway refuses bodies of this size (413)", { hint: "raise the proxy's limit" });
    return status >= 502 || status === 429 ? new GaplessError("network", `answered ${status}`, { retryable: true }) : this.stranger(status);
  }

  private stranger(status?: number): GaplessError {
    const what = status === undefined ? "" : ` (${status})`;
    return new GaplessError("not_a_gateway", `what answers at ${this.url} is no Gapless gateway${what}`, { retryable: true, hint: "check the url" });
  }

  private async json<T>(path: string, { body, bound, signal }: RequestOptions): Promise<T> {
    const abort = new AbortController();
    const read = async (): Promise<T> => {
      const response = await this.fetch(path, abort.signal, body);
      const text = await response.text().catch((cause: unknown) => {
        throw toError(cause);
      });
      try {
        return (JSON.parse(text) ?? {}) as T;
      } catch {
        throw this.stranger();
      }
    };
    try {
      return await bounded(this.platform, bound, read(), signal);
    } finally {
      abort.abort();
    }
  }
}

export const roomsQuery = (rooms: readonly string[]): string => `rooms=${rooms.map(encodeURIComponent).join(",")}`;
