// Made by `raptorflow types` from the Python types. Change those, and make it again.

import type {} from "@raptorflow/redis";

/** A campaign that several people edit at once. */
export interface CampaignPage {
  readonly title?: string;
  readonly audience?: string;
  readonly budget?: number;
  readonly notes?: string;
  readonly question?: number;
}

/** What planning a campaign makes. */
export interface Planned {
  readonly channels: Readonly<Record<string, number>>;
}

/** Somebody said something to all who have the campaign open. */
export interface Said {
  readonly type: "Said";
  readonly by: string;
  readonly text: string;
}

/** A field was changed. */
export interface Saved {
  readonly type: "Saved";
  readonly by: string;
  readonly field: string;
}

/** Somebody who has the campaign open. */
export interface Viewer {
  readonly name: string;
  readonly hue: number;
  readonly field?: string | null;
}

export interface Topics {
  events: {
    [topic: `campaign:${string}`]: Saved | Said;
  };
  state: {
    [topic: `campaign:${string}`]: CampaignPage;
  };
  append: {
    [topic: `answer:${string}`]: string;
  };
  presence: {
    [topic: `campaign:${string}`]: Viewer;
  };
}

export interface Jobs {
  "demo.plan": { result: Planned };
}
declare module "@raptorflow/redis" {
  interface Register {
    topics: Topics;
    jobs: Jobs;
  }
}
