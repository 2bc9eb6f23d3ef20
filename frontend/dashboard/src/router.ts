/** Which page, and the time range: in the address' fragment, so that a link shows the same thing to a colleague. */

import { computed, signal } from "@preact/signals";

export const RANGES = [
  { name: "15 min", seconds: 900 },
  { name: "1 h", seconds: 3600 },
  { name: "6 h", seconds: 21_600 },
  { name: "24 h", seconds: 86_400 },
  { name: "7 days", seconds: 604_800 },
  { name: "30 days", seconds: 2_592_000 },
] as const;

const fragment = signal(location.hash);
addEventListener("hashchange", () => (fragment.value = location.hash));

const address = computed(() => new URL(fragment.value.slice(1) || "/", "http://page"));

export const page = computed(() => address.value.pathname.slice(1) || "overview");

export const query = computed(() => address.value.searchParams);

export const range = computed(() => {
  const wanted = Number(query.value.get("range"));
  return RANGES.find((one) => one.seconds === wanted) ?? RANGES[1];
});

/** The fragment of a page that keeps the range, with other words of its own. */
export function link(to: string, words: Record<string, string> = {}): string {
  const kept = new URLSearchParams(words);
  if (range.value !== RANGES[1]) kept.set("range", String(range.value.seconds));
  const text = kept.toString();
  return `#/${to}${text && `?${text}`}`;
}

export function go(to: string, words: Record<string, string> = {}): void {
  location.hash = link(to, words);
}

export function setRange(seconds: number): void {
  const words = new URLSearchParams(query.value);
  words.set("range", String(seconds));
  location.hash = `#/${page.value}?${words.toString()}`;
}
