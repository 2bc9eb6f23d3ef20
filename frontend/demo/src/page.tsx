import { useEffect, useState } from "react";
import { usePresence, useRealtime, useSharedState, useStatus, useTopic } from "@raptorflow/redis/react";
import { Agent } from "./agent.tsx";
import { Field, type FieldName } from "./field.tsx";
import { Job } from "./job.tsx";

export interface PageProps {
  readonly user: string;
  readonly workspace: string;
  readonly campaign: string;
}

const STATUS = {
  live: "Live",
  "catching-up": "Catching up",
  stale: "Stale: the store is away",
  offline: "Offline: trying again",
} as const;

/** One campaign that everybody who has it open edits at once. */
export function Page({ user, workspace, campaign }: PageProps) {
  const { tab, sharing } = useRealtime();
  const topic = `campaign:${campaign}` as const;
  const { draft, patch, saving, version } = useSharedState(topic);
  const [field, setField] = useState<FieldName | null>(null);
  const hue = hueOf(tab);
  const { members, isMine } = usePresence(topic, { data: { name: user, hue, field } });
  const [failed, setFailed] = useState("");

  const edit = (name: FieldName, value: string | number): void => {
    setFailed("");
    patch({ [name]: value }).catch((error: unknown) => setFailed(error instanceof Error ? error.message : String(error)));
  };
  const others = Object.entries(members).filter(([member]) => !isMine(member));

  return (
    <>
      <header>
        <div>
          <p className="path">
            <a href="../">{workspace}</a> / campaigns / {campaign}
          </p>
          <h1>{draft?.title || "Untitled campaign"}</h1>
        </div>
        <div className="here">
          <ul className="people" aria-label="Who has this open">
            {Object.entries(members).map(([member, { name, hue: colour }]) => (
              <li key={member} style={{ "--hue": colour } as React.CSSProperties} title={isMine(member) ? `${name}, this window` : name}>
                {name.slice(0, 2)}
                {isMine(member) && <span className="mine" />}
              </li>
            ))}
          </ul>
          <Freshness />
        </div>
      </header>
      <main>
        <section aria-labelledby="document" className="document">
          <h2 id="document">
            The document <small>{saving ? "saving" : `version ${version}`}</small>
          </h2>
          {(["title", "audience", "budget", "notes"] as const).map((name) => (
            <Field
              key={name}
              name={name}
              value={draft?.[name]}
              others={others.filter(([, viewer]) => viewer.field === name).map(([, viewer]) => viewer)}
              onChange={(value) => edit(name, value)}
              onFocus={() => setField(name)}
              onBlur={() => setField(null)}
            />
          ))}
          {failed && <p className="failed" role="alert">{failed}</p>}
          <p className="hint">Open this page in another window: both edit the same document. This window has its stream from a {sharing ?? "…"}.</p>
        </section>
        <Agent campaign={campaign} question={draft?.question ?? 0} />
        <Job budget={draft?.budget ?? 0} />
        <Talk user={user} topic={topic} />
      </main>
    </>
  );
}

function Freshness() {
  const status = useStatus();
  return (
    <p className={`status ${status}`} role="status">
      {STATUS[status]}
    </p>
  );
}

function Talk({ user, topic }: { readonly user: string; readonly topic: `campaign:${string}` }) {
  const { events, gaps, publish } = useTopic(topic, { keep: 30 });
  const [text, setText] = useState("");
  const said = events.filter((event) => event.type === "Said");
  const say = (event: React.FormEvent): void => {
    event.preventDefault();
    if (text.trim() === "") return;
    void publish({ type: "Said", by: user, text: text.trim() });
    setText("");
  };
  useEffect(() => {
    document.querySelector(".talk li:last-child")?.scrollIntoView({ block: "nearest" });
  }, [said.length]);
  return (
    <section aria-labelledby="talk" className="talk">
      <h2 id="talk">Said here</h2>
      <ol aria-live="polite">
        {said.map((event, index) => (
          <li key={index}>
            <b>{event.by}</b> {event.text}
          </li>
        ))}
        {said.length === 0 && <li className="hint">Nothing since you came.</li>}
      </ol>
      {gaps > 0 && <p className="failed">Some of it was lost while you were away.</p>}
      <form onSubmit={say}>
        <input aria-label="Say something" value={text} maxLength={200} onChange={(event) => setText(event.target.value)} />
        <button>Say</button>
      </form>
    </section>
  );
}

/** A colour for each window, the same in all of them. */
function hueOf(id: string): number {
  return parseInt(id.slice(0, 6), 16) % 360;
}
