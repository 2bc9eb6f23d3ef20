/** Light or dark, as the system says; charts draw themselves anew when it changes. */

import { signal } from "@preact/signals";

const dark = matchMedia("(prefers-color-scheme: dark)");

export const scheme = signal<"light" | "dark">(dark.matches ? "dark" : "light");

dark.addEventListener("change", () => (scheme.value = dark.matches ? "dark" : "light"));
