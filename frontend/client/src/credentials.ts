import type { Session } from "./protocol.ts";
import type { Requests } from "./requests.ts";

/** Refreshed when this share of a token's life is left, or a minute if that is less. */
const LEFT_AT_REFRESH = 0.2;
const BEFORE_END_MS = 60_000;

/** The token of this browser: got once, for as long as it is valid, whoever asks. */
export class Credentials {
  #session: Session | undefined;
  #asked: Promise<Session> | undefined;
  #life = 0;

  /** @param signed gives the token that the application's own backend made; without it the session's cookie speaks. */
  constructor(
    private readonly requests: Requests,
    private readonly signed: () => Promise<string | undefined>,
  ) {}

  /** What the current token allows; undefined before there was one. */
  get session(): Session | undefined {
    return this.#session;
  }

  /** A token that is not at its end. */
  async get(): Promise<Session> {
    const current = this.#session;
    return current !== undefined && this.refreshIn() > 0 ? current : await this.renew();
  }

  /** A new token, also if the current one has not ended. */
  renew(): Promise<Session> {
    this.#asked ??= this.#ask().finally(() => {
      this.#asked = undefined;
    });
    return this.#asked;
  }

  /** The server does not take the token any more. */
  forget(): void {
    this.#session = undefined;
  }

  /** Milliseconds until the token should be replaced. */
  refreshIn(): number {
    if (this.#session === undefined) return 0;
    const left = this.#session.expires * 1000 - this.requests.serverTime();
    return left - Math.min(BEFORE_END_MS, this.#life * LEFT_AT_REFRESH);
  }

  async #ask(): Promise<Session> {
    const session = (await this.requests.call("/session", {}, await this.signed())) as Session;
    this.#life = session.expires * 1000 - this.requests.serverTime();
    this.#session = session;
    return session;
  }
}
