import type { Clock } from "./clock.ts";
import { errorOf, RealtimeError } from "./errors.ts";

const ANSWERED_WITHIN_MS = 15_000;

/** Requests below the base path. The token goes in a header, never in an address. */
export class Requests {
  #aheadMs = 0;

  /** @param base for example "https://app.example/api/v1/realtime". */
  constructor(
    private readonly base: string,
    private readonly fetcher: typeof fetch,
    private readonly clock: Clock,
  ) {}

  /** The server's time, Unix in milliseconds: this device's clock may be hours off. */
  serverTime(): number {
    return this.clock.wall() + this.#aheadMs;
  }

  /** POSTs JSON and reads the JSON that comes back. */
  async call(path: string, body: unknown, token: string | undefined): Promise<unknown> {
    const response = await this.open(path, body, token, new AbortController());
    return response.status === 204 ? undefined : await response.json();
  }

  /**
   * POSTs JSON and gives the response once its head is there. `abort` ends it also later.
   *
   * @throws RealtimeError the server refused, did not answer in time, or was not there.
   */
  async open(path: string, body: unknown, token: string | undefined, abort: AbortController): Promise<Response> {
    const takeBack = this.clock.after(ANSWERED_WITHIN_MS, () => abort.abort());
    const headers: Record<string, string> = { "Content-Type": "application/json" };
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    let response: Response;
    try {
      response = await this.fetcher(`${this.base}${path}`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
        // The session's cookie is for the session endpoint; others go by the token alone.
        credentials: path === "/session" ? "same-origin" : "omit",
        cache: "no-store",
        signal: abort.signal,
      });
    } catch (error) {
      throw new RealtimeError(`The server could not be reached: ${String(error)}`, "network", 0);
    } finally {
      takeBack();
    }
    const date = Date.parse(response.headers.get("Date") ?? "");
    if (!Number.isNaN(date)) this.#aheadMs = date - this.clock.wall();
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}
