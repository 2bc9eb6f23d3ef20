/** Depth, wait and failures of every queue; its jobs, one by one or by filter. */

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

import { ask, change, type Problem } from "../api";
import { Chart } from "../chart";
import { confirmAction, show } from "../dialog";
import type { Done, JobFigures, JobPage, QueueFigures, QueueList } from "../documents";
import { lines, times, useSeries } from "../figures";
import { count, rate, seconds } from "../format";
import { useLive } from "../live";
import { Facts, Section, State, Tag } from "../parts";
import { go, link, query } from "../router";
import { Table } from "../table";

const STATES = ["waiting", "delayed", "blocked", "running", "dead"] as const;

export function Queues() {
  const queues = useLive((abort) => ask<QueueList>("admin/queues", {}, abort), []);
  const series = useSeries("queue_depth", "jobs_total", "queue_wait_seconds");
  const all = queues.value.value?.queues ?? [];
  const found = series.value.value ?? {};
  const chosen = all.find((one) => one.queue === query.value.get("queue"));
  return (
    <>
      <State of={queues} />
      <Section title="All queues">
        <Table
          quiet
          caption="Queues"
          empty="No queue has had a job yet."
          rows={all}
          id={(row) => row.queue}
          columns={[
            { head: "Queue", cell: (row) => <a href={link("queues", { queue: row.queue })}>{row.queue}</a>, by: (row) => row.queue },
            { head: "State", cell: state },
            { head: "Waiting", cell: (row) => count(due(row)), by: due, number: true },
            { head: "Running", cell: (row) => count(row.running), by: (row) => row.running, number: true },
            { head: "Later", cell: (row) => count(row.delayed), by: (row) => row.delayed, number: true },
            { head: "Dead", cell: (row) => count(row.dead), by: (row) => row.dead, number: true },
            { head: "Workers", cell: (row) => count(row.workers), by: (row) => row.workers, number: true },
            { head: "", cell: (row) => <Pause queue={row} /> },
          ]}
        />
      </Section>
      <div class="two">
        <Chart title="Depth" times={times(found.queue_depth)} lines={lines(found.queue_depth)} format={count} whole />
        <Chart title="Runs" times={times(found.jobs_total)} lines={lines(found.jobs_total)} format={(value) => `${rate(value)}/s`} />
        <Chart
          title="Wait"
          times={times(found.queue_wait_seconds)}
          lines={lines(found.queue_wait_seconds, { p50: "p50", p95: "p95", p99: "p99" })}
          format={seconds}
        />
        {chosen && <Tenants queue={chosen} />}
      </div>
      {chosen && <Jobs queue={chosen.queue} workspaces={Object.keys(chosen.workspaces)} />}
    </>
  );
}

/** What waits and may run by now. */
function due(queue: QueueFigures): number {
  return Math.max(0, queue.waiting - queue.delayed);
}

function state(queue: QueueFigures) {
  if (queue.paused) return <Tag kind="warn">paused</Tag>;
  if (due(queue) > 0 && queue.workers === 0) return <Tag kind="bad">no worker</Tag>;
  return <Tag kind="good">running</Tag>;
}

function Pause(props: { queue: QueueFigures }) {
  const { queue, paused } = props.queue;
  return (
    <button
      type="button"
      onClick={() =>
        confirmAction<Done>({
          title: paused ? `Resume ${queue}?` : `Pause ${queue}?`,
          body: (
            <p>
              {paused
                ? "Workers claim its jobs again."
                : "Workers claim none of its jobs; those that run go on, and new ones are taken in."}
            </p>
          ),
          button: paused ? "Resume" : "Pause",
          path: `admin/queues/${encodeURIComponent(queue)}/${paused ? "resume" : "pause"}`,
          done: () => (paused ? `${queue} goes on.` : `${queue} is paused.`),
        })
      }
    >
      {paused ? "Resume" : "Pause"}
      <span class="heard"> {queue}</span>
    </button>
  );
}

function Tenants(props: { queue: QueueFigures }) {
  return (
    <Section title={`Workspaces in ${props.queue.queue}`}>
      <Table
        quiet
        caption="Unfinished jobs by workspace"
        empty="No workspace has unfinished jobs here."
        rows={Object.entries(props.queue.workspaces)}
        id={([workspace]) => workspace}
        columns={[
          { head: "Workspace", cell: ([workspace]) => workspace, by: ([workspace]) => workspace },
          { head: "Unfinished", cell: ([, jobs]) => count(jobs), by: ([, jobs]) => jobs, number: true },
        ]}
      />
    </Section>
  );
}

function Jobs(props: { queue: string; workspaces: readonly string[] }) {
  const workspace = query.value.get("workspace") ?? props.workspaces[0] ?? "";
  const chosen = query.value.get("state") ?? "waiting";
  const task = query.value.get("task") ?? "";
  const cursor = query.value.get("cursor") ?? "";
  const path = `admin/queues/${encodeURIComponent(props.queue)}/jobs`;
  const jobs = useLive<JobPage>(
    async (abort) =>
      workspace
        ? ask<JobPage>(path, { workspace, state: chosen, task: task || undefined, cursor: cursor || undefined }, abort)
        : { jobs: [], next: null },
    [path, workspace, chosen, task, cursor],
  );
  const typed = useMemo(() => ({ workspace: signal(workspace), task: signal(task) }), [workspace, task]);
  const words = { queue: props.queue, workspace, state: chosen, ...(task && { task }) };
  const page = jobs.value.value;
  return (
    <Section title={`Jobs of ${props.queue}`}>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          go("queues", { ...words, workspace: typed.workspace.value.trim(), task: typed.task.value.trim() });
        }}
      >
        <label>
          Workspace
          <input
            required
            list="workspaces"
            value={typed.workspace.value}
            onInput={(event) => (typed.workspace.value = event.currentTarget.value)}
          />
          <datalist id="workspaces">
            {props.workspaces.map((one) => (
              <option>{one}</option>
            ))}
          </datalist>
        </label>
        <label>
          State
          <select value={chosen} onChange={(event) => go("queues", { ...words, state: event.currentTarget.value })}>
            {STATES.map((one) => (
              <option>{one}</option>
            ))}
          </select>
        </label>
        <label>
          Task
          <input value={typed.task.value} onInput={(event) => (typed.task.value = event.currentTarget.value)} />
        </label>
        <button type="submit">Show</button>
        {workspace &&
          (chosen === "dead" ? (["retry", "delete"] as const) : (["cancel"] as const)).map((name) => (
            <ByFilter queue={props.queue} workspace={workspace} state={chosen} task={task} name={name} />
          ))}
      </form>
      <State of={jobs} />
      <Table
        quiet
        caption={`Jobs of ${workspace}`}
        empty={workspace ? `${workspace} has no ${chosen} jobs here.` : "Name a workspace."}
        rows={page?.jobs ?? []}
        id={(row) => row.id}
        columns={[
          {
            head: "Job",
            cell: (row) => (
              <button type="button" class="quiet" onClick={() => inspect(row)}>
                <code>{row.id}</code>
              </button>
            ),
          },
          { head: "Task", cell: (row) => row.task ?? "–", by: (row) => row.task ?? "" },
          {
            head: "State",
            cell: (row) => <Tag kind={row.state === "dead" || row.state === "failed" ? "bad" : undefined}>{row.state}</Tag>,
            by: (row) => row.state,
          },
          {
            head: "Progress",
            cell: (row) =>
              row.progress === null ? "–" : <meter value={row.progress} aria-label={`${Math.round(row.progress * 100)} %`} />,
          },
          { head: "Last error", cell: (row) => row.errors.at(-1) ?? "–" },
          { head: "", cell: (row) => <One job={row} /> },
        ]}
      />
      {page?.next && <a href={link("queues", { ...words, cursor: page.next })}>More</a>}
    </Section>
  );
}

function One(props: { job: JobFigures }) {
  const { job } = props;
  const action = (name: "retry" | "cancel" | "delete", effect: string) => (
    <button
      type="button"
      class={name === "retry" ? "" : "danger"}
      onClick={() =>
        confirmAction<Done>({
          title: `${capital(name)} ${job.id}?`,
          body: <p>{effect}</p>,
          button: capital(name),
          danger: name !== "retry",
          path: `admin/queues/${encodeURIComponent(job.queue)}/${name}`,
          words: { workspace: job.workspace, ids: [job.id] },
          done: (answer) => (answer.changed ? "Done." : "Nothing was changed: it is in another state by now."),
        })
      }
    >
      {capital(name)}
      <span class="heard"> {job.id}</span>
    </button>
  );
  return (
    <div class="actions">
      {job.state === "dead" && action("retry", "It is sent again from the start; steps that were done are not done again.")}
      {job.state !== "dead" && action("cancel", "If it waits it does not run; if it runs it is ended.")}
      {job.state === "dead" && action("delete", "It and its history of errors are removed for good.")}
    </div>
  );
}

/** The same for all that match: first counted, then asked, then done. */
function ByFilter(props: { queue: string; workspace: string; state: string; task: string; name: "retry" | "cancel" | "delete" }) {
  const { name } = props;
  const path = `admin/queues/${encodeURIComponent(props.queue)}/${name}`;
  const which = { workspace: props.workspace, task: props.task || null };
  const words = props.state === "dead" ? which : { ...which, state: props.state };

  async function countFirst(): Promise<void> {
    let counted: Done;
    try {
      counted = await change<Done>(path, { ...words, dry_run: true });
    } catch (error) {
      show("Not counted", <p class="note bad">{(error as Problem).message}</p>);
      return;
    }
    confirmAction<Done>({
      title: `${capital(name)} ${count(counted.matched)} ${counted.matched === 1 ? "job" : "jobs"}?`,
      body: (
        <p>
          All {props.state} jobs of {props.workspace}
          {props.task && ` of task ${props.task}`} in {props.queue}: {count(counted.matched)} just now.
        </p>
      ),
      button: `${capital(name)} all`,
      danger: name !== "retry",
      path,
      words: { ...words, dry_run: false },
      done: (answer) => `${count(answer.changed)} of ${count(answer.matched)} were changed.`,
    });
  }

  return (
    <button type="button" class={name === "retry" ? "" : "danger"} onClick={() => void countFirst()}>
      {capital(name)} all that match …
    </button>
  );
}

function inspect(job: JobFigures): void {
  show(
    `Job ${job.id}`,
    <>
      <Facts
        of={[
          ["Workspace", job.workspace],
          ["Queue", job.queue],
          ["Task", job.task ?? "–"],
          ["State", job.state],
          ["Enqueued", job.enqueued ?? "–"],
          ["Due", job.due ?? "–"],
          ["Ended", job.ended ?? "–"],
          ["Progress", job.progress === null ? "–" : `${Math.round(job.progress * 100)} % ${job.message ?? ""}`],
        ]}
      />
      {job.errors.length > 0 && (
        <>
          <h3>Errors, the first one first</h3>
          <pre>{job.errors.join("\n")}</pre>
        </>
      )}
    </>,
  );
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
