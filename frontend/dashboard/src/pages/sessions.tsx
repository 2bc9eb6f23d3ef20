/** Logins and ends over time; a user's sessions, to be revoked one by one or all at once. */

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

import { ask } from "../api";
import { Chart } from "../chart";
import { confirmAction } from "../dialog";
import type { Done, SessionFigures, SessionPage } from "../documents";
import { lines, times, useSeries } from "../figures";
import { ago, count, rate } from "../format";
import { useLive } from "../live";
import { Section, State } from "../parts";
import { go, query } from "../router";
import { Table } from "../table";

export function Sessions() {
  const series = useSeries("session_events_total");
  const found = series.value.value?.session_events_total;
  return (
    <>
      <State of={series} />
      <Chart title="What happened to sessions" times={times(found)} lines={lines(found)} format={(value) => `${rate(value)}/s`} />
      <OfUser />
    </>
  );
}

function OfUser() {
  const workspace = query.value.get("workspace") ?? "";
  const user = query.value.get("user") ?? "";
  const typed = useMemo(() => ({ workspace: signal(workspace), user: signal(user) }), [workspace, user]);
  const asked = Boolean(workspace && user);
  const sessions = useLive<SessionPage>(
    async (abort) => (asked ? ask<SessionPage>("admin/sessions", { workspace, user }, abort) : { sessions: [] }),
    [workspace, user],
  );
  const all = sessions.value.value?.sessions ?? [];
  return (
    <Section title="Sessions of a user">
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          go("sessions", { workspace: typed.workspace.value.trim(), user: typed.user.value.trim() });
        }}
      >
        <label>
          Workspace
          <input required value={typed.workspace.value} onInput={(event) => (typed.workspace.value = event.currentTarget.value)} />
        </label>
        <label>
          User
          <input required value={typed.user.value} onInput={(event) => (typed.user.value = event.currentTarget.value)} />
        </label>
        <button type="submit">Show</button>
        {all.length > 0 && (
          <button type="button" class="danger" onClick={() => revoke(workspace, user, null)}>
            Revoke all …
          </button>
        )}
      </form>
      <State of={sessions} />
      <Table<SessionFigures>
        quiet
        caption={`Sessions of ${user}`}
        empty={asked ? `${user} has no session in ${workspace}.` : "Name a workspace and a user."}
        rows={all}
        id={(row) => row.handle}
        columns={[
          { head: "Session", cell: (row) => <code>{row.handle}</code> },
          { head: "Device", cell: (row) => row.device ?? "–", by: (row) => row.device ?? "" },
          { head: "Last used", cell: (row) => ago(Date.parse(row.last_used) / 1000), by: (row) => row.last_used },
          { head: "Since", cell: (row) => ago(Date.parse(row.created) / 1000), by: (row) => row.created },
          {
            head: "",
            cell: (row) => (
              <button type="button" class="danger" onClick={() => revoke(workspace, user, row.handle)}>
                Revoke
              </button>
            ),
          },
        ]}
      />
    </Section>
  );
}

function revoke(workspace: string, user: string, handle: string | null): void {
  confirmAction<Done>({
    title: handle === null ? `Revoke all sessions of ${user}?` : `Revoke session ${handle}?`,
    body: (
      <p>
        {handle === null ? "Every device has to log in again." : "That device has to log in again."} A revoked session does not come back.
      </p>
    ),
    button: "Revoke",
    danger: true,
    path: "admin/sessions/revoke",
    words: { workspace, user, handle },
    done: (answer) => `${count(answer.changed)} revoked.`,
  });
}
