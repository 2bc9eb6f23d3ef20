/** A request that the server refused, or that could not be made. */
export class RealtimeError extends Error {
  override readonly name = "RealtimeError";

  /**
   * @param code the problem's code, as docs/realtime-protocol.md lists them; "network" where no answer came.
   * @param status the HTTP status; 0 where no answer came.
   * @param retryAfterMs how long the server asks to wait, in milliseconds.
   */
  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
    readonly retryAfterMs: number = 0,
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get retryable(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** The error that a response tells as problem details, or by its status alone. */
export async function errorOf(response: Response): Promise<RealtimeError> {
  let problem: { code?: unknown; title?: unknown; detail?: unknown } = {};
  try {
    problem = ((await response.json()) ?? {}) as typeof problem;
  } catch {
    // Not JSON: a proxy's page. The status says what there is to say.
  }
  const message = [problem.detail, problem.title].find((text) => typeof text === "string");
  const code = typeof problem.code === "string" ? problem.code : `http-${response.status}`;
  const text = (message as string | undefined) ?? `The server answered ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After"));
  return new RealtimeError(text, code, response.status, Number.isFinite(seconds) ? Math.min(seconds, 60) * 1000 : 0);
}
