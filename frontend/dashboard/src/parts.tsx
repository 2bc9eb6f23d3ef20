/** Small parts that pages share. */

import type { ComponentChildren } from "preact";

import { type Problem, refused } from "./api";
import { ago } from "./format";
import type { Live } from "./live";

export function Card(props: { name: string; value: string; more?: ComponentChildren }) {
  return (
    <dl class="card">
      <dt>{props.name}</dt>
      <dd>{props.value}</dd>
      {props.more && (
        <dd class="more">
          <small>{props.more}</small>
        </dd>
      )}
    </dl>
  );
}

export function Section(props: { title: string; children: ComponentChildren; tools?: ComponentChildren }) {
  const id = `section-${props.title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return (
    <section aria-labelledby={id}>
      <div class="top">
        <h2 id={id}>{props.title}</h2>
        {props.tools}
      </div>
      {props.children}
    </section>
  );
}

export function Tag(props: { kind?: "good" | "warn" | "bad" | undefined; children: ComponentChildren }) {
  return <span class={`tag ${props.kind ?? ""}`}>{props.children}</span>;
}

export function Facts(props: { of: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {props.of.map(([name, value]) => (
        <>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </>
      ))}
    </dl>
  );
}

/** What went wrong with the last question, and how old the figures are that are still shown. */
export function State(props: { of: Live<unknown> }) {
  const { error, at, value } = props.of;
  const problem: Problem | null = error.value;
  if (problem?.forbidden) queueMicrotask(() => (refused.value = problem.message));
  if (problem !== null && !problem.forbidden)
    return (
      <p class="note bad" role="alert">
        <b>{problem.status === 0 ? "The service does not answer" : "This could not be read"}</b>
        <span>
          {problem.message}
          {at.value > 0 && ` What you see is from ${ago(at.value / 1000)}.`}
        </span>
      </p>
    );
  if (value.value === null) return <p class="empty">Reading …</p>;
  return null;
}
