/** The admin API: one function asks, one changes; every failure is a `Problem` with what the service said. */

import { signal } from "@preact/signals";

/** RFC 9457, as the service answers. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }

  get forbidden(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

/** Why the service refused who looks: the page then asks for a token. */
export const refused = signal<string | null>(null);

const TOKEN = "raptorflow-admin-token";

/** The admin token of this tab. It is kept for the tab's life only, and sent in a header, never in an address. */
export const token = signal(sessionStorage.getItem(TOKEN) ?? "");

export function setToken(value: string): void {
  token.value = value;
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

/** The service's root: the page is at `<root>/admin/performance/`. */
export const ROOT = new URL("../..", document.baseURI.replace(/[?#].*$/, "").replace(/\/?$/, "/"));

export type Words = Record<string, string | number | undefined>;

export async function ask<T>(path: string, words: Words = {}, abort?: AbortSignal): Promise<T> {
  return request<T>("GET", path, words, undefined, abort);
}

export async function change<T>(path: string, body: unknown = {}, method: "POST" | "DELETE" | "PUT" = "POST"): Promise<T> {
  return request<T>(method, path, {}, body);
}

async function request<T>(method: string, path: string, words: Words, body?: unknown, abort?: AbortSignal): Promise<T> {
  const url = new URL(`api/v1/${path}`, ROOT);
  for (const [name, value] of Object.entries(words)) if (value !== undefined) url.searchParams.set(name, String(value));
  const headers: Record<string, string> = { accept: "application/json" };
  if (token.value) headers["authorization"] = `Bearer ${token.value}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const init: RequestInit = { method, headers, credentials: "same-origin", signal: abort ?? null };
  if (body !== undefined) init.body = JSON.stringify(body);
  let answer: Response;
  try {
    answer = await fetch(url, init);
  } catch (error) {
    if (abort?.aborted) throw error;
    throw new Problem(0, "unreachable", "The service does not answer.");
  }
  const text = await answer.text();
  if (!answer.ok) throw problem(answer, text);
  return (text ? JSON.parse(text) : null) as T;
}

function problem(answer: Response, text: string): Problem {
  const wait = Number(answer.headers.get("retry-after")) || null;
  try {
    const told = JSON.parse(text) as { code?: string; detail?: string; title?: string };
    return new Problem(answer.status, told.code ?? "error", told.detail ?? told.title ?? answer.statusText, wait);
  } catch {
    return new Problem(answer.status, "error", `The service answered ${answer.status}.`, wait);
  }
}
