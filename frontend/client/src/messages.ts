// What tabs and the hub that they share say to each other. All of it can be cloned structurally.

import type { Status } from "./connection.ts";
import type { Json, Kind, Refused, TopicFrame, Want } from "./protocol.ts";

/** How the hub reaches the service. */
export interface HubConfig {
  /** The base path's whole URL. */
  readonly url: string;
  /** Whether a tab gives the token; else the session's cookie speaks. */
  readonly signed: boolean;
}

export type ToHub =
  | { readonly m: "join"; readonly tab: string; readonly config: HubConfig }
  | { readonly m: "want"; readonly want: Want }
  | { readonly m: "drop"; readonly kind: Kind; readonly topic: string }
  | { readonly m: "publish"; readonly call: number; readonly body: Json; readonly repeatable: boolean }
  | { readonly m: "present"; readonly topic: string; readonly member: string; readonly data: Json }
  | { readonly m: "absent"; readonly topic: string; readonly member: string }
  | { readonly m: "token"; readonly token: string | null }
  | { readonly m: "wake"; readonly why: "online" | "visible" }
  | { readonly m: "leave" };

export type ToTab =
  | { readonly m: "frame"; readonly frame: TopicFrame }
  | { readonly m: "status"; readonly status: Status }
  | { readonly m: "refused"; readonly refused: Refused }
  | { readonly m: "token" }
  | { readonly m: "moved" }
  | { readonly m: "done"; readonly call: number; readonly result: Json }
  | { readonly m: "failed"; readonly call: number; readonly message: string; readonly code: string; readonly status: number };

/** One tab, as the hub sees it. */
export interface TabPort {
  send(message: ToTab): void;
}
