import type { Json } from "./protocol.ts";

/** What changes a `T`: members to set, null to remove one. Arrays are replaced as a whole. */
export type MergePatch<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { readonly [K in keyof T]?: MergePatch<T[K]> | null }
    : T;

/** JSON Merge Patch, RFC 7396. Neither argument is changed; what stays the same is shared. */
export function merge(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const merged: { [name: string]: Json } = Object.assign(Object.create(null), isObject(target) ? target : {});
  for (const [name, change] of Object.entries(patch)) {
    if (change === null) delete merged[name];
    else merged[name] = merge(merged[name], change);
  }
  // Built without a prototype, so that a member called __proto__ is a member.
  return Object.fromEntries(Object.entries(merged));
}

function isObject(value: Json | undefined): value is { [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
