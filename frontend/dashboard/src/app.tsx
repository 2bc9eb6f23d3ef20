/** The frame: pages, the time range, pause, and the login where the service asks for a credential. */

import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { refused, setToken, token } from "./api";
import { Dialogs } from "./dialog";
import { changed } from "./live";
import { Audit } from "./pages/audit";
import { Cache } from "./pages/cache";
import { Limits } from "./pages/limits";
import { Overview } from "./pages/overview";
import { Queues } from "./pages/queues";
import { Realtime } from "./pages/realtime";
import { Sessions } from "./pages/sessions";
import { Slow } from "./pages/slow";
import { Workspaces } from "./pages/workspaces";
import { Tag } from "./parts";
import { hidden, paused, streaming } from "./stream";
import { link, page, range, RANGES, setRange } from "./router";

/** Where the time range changes nothing it is not offered. */
const PAGES: readonly { path: string; name: string; show: ComponentType; always?: true }[] = [
  { path: "overview", name: "Overview", show: Overview },
  { path: "cache", name: "Cache", show: Cache },
  { path: "queues", name: "Queues", show: Queues },
  { path: "limits", name: "Limits", show: Limits },
  { path: "sessions", name: "Sessions", show: Sessions },
  { path: "realtime", name: "Realtime", show: Realtime },
  { path: "workspaces", name: "Workspaces", show: Workspaces },
  { path: "slow", name: "Slow operations", show: Slow },
  { path: "audit", name: "Audit", show: Audit, always: true },
];

export function App() {
  // On a phone the pages are one line that scrolls: the present one is in sight.
  useEffect(() => document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [page.value]);
  if (refused.value !== null) return <Login />;
  const shown = PAGES.find((one) => one.path === page.value);
  const Page = shown?.show ?? Nowhere;
  document.title = `${shown?.name ?? "Not found"} · RaptorFlow Redis`;
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        To the content
      </a>
      <div class="frame">
        <header class="side">
          <div class="brand">
            <Mark /> RaptorFlow Redis
          </div>
          <nav aria-label="Pages">
            <ul>
              {PAGES.map((one) => (
                <li>
                  <a href={link(one.path)} aria-current={one === shown ? "page" : undefined}>
                    {one.name}
                  </a>
                </li>
              ))}
            </ul>
          </nav>
          {token.value && (
            <button type="button" class="quiet" onClick={() => setToken("")}>
              Forget the token
            </button>
          )}
        </header>
        <main id="content" tabIndex={-1}>
          <div class="top">
            <h1>{shown?.name ?? "Not found"}</h1>
            <div class="tools">
              {!shown?.always && (
                <div class="range" role="group" aria-label="Time range">
                  {RANGES.map((one) => (
                    <button type="button" aria-pressed={one === range.value} onClick={() => setRange(one.seconds)}>
                      {one.name}
                    </button>
                  ))}
                </div>
              )}
              <button type="button" aria-pressed={paused.value} onClick={() => (paused.value = !paused.value)}>
                {paused.value ? "Go on" : "Pause"}
              </button>
              {hidden.value ? <Tag>paused while hidden</Tag> : streaming.value && <Tag kind="good">live</Tag>}
            </div>
          </div>
          <Page key={page.value} />
        </main>
      </div>
      <Dialogs />
    </>
  );
}

function Nowhere() {
  return (
    <p>
      There is no page of this name. <a href={link("overview")}>Overview</a>
    </p>
  );
}

function Login() {
  const typed = useMemo(() => signal(""), []);
  return (
    <main class="login">
      <div class="brand">
        <Mark /> RaptorFlow Redis
      </div>
      <h1>Administration</h1>
      <p role="alert">{refused.value}</p>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setToken(typed.value.trim());
          refused.value = null;
          changed();
        }}
      >
        <label>
          Admin token
          <input type="password" autocomplete="off" required onInput={(event) => (typed.value = event.currentTarget.value)} />
        </label>
        <button type="submit" class="main">
          Go in
        </button>
      </form>
      <p class="empty">
        It is kept for this tab only. <code>raptorflow up</code> prints one where none is set; <code>raptorflow token</code> makes one to keep.
      </p>
    </main>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Mark() {
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true">
      <rect width="16" height="16" rx="3" fill="var(--accent)" />
      <path
        d="M3 11l3-4 3 2 4-6"
        fill="none"
        stroke="var(--accent-text)"
        stroke-width="1.6"
        stroke-linecap="round"
        stroke-linejoin="round"
      />
    </svg>
  );
}
