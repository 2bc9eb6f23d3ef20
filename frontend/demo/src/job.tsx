import { useState } from "react";
import { useJob } from "@raptorflow/redis/react";
import { ask } from "./requests.ts";

/** A job of the queue as it runs. */
export function Job({ budget }: { readonly budget: number }) {
  const [id, setId] = useState<string>();
  const [failed, setFailed] = useState("");
  const start = (): void => {
    setFailed("");
    // Listen first, then start: the job's first word is heard too.
    const job = crypto.randomUUID();
    setId(job);
    ask("plans", { budget, job }).catch((error: unknown) => setFailed(String(error)));
  };
  return (
    <section aria-labelledby="job" className="job">
      <h2 id="job">The plan</h2>
      {id === undefined ? <p className="hint">A job divides the budget, and tells how far it is.</p> : <Progress id={id} />}
      <button onClick={start}>Plan the budget</button>
      {failed && <p className="failed" role="alert">{failed}</p>}
    </section>
  );
}

function Progress({ id }: { readonly id: string }) {
  const { progress, message, logs, ended, result, error } = useJob(id, "demo.plan");
  return (
    <>
      <progress aria-label="Progress" max={1} value={progress} />
      <p className="message">{ended === undefined ? message || "waiting" : (error ?? ended)}</p>
      <ol className="logs">
        {logs.map((line, index) => (
          <li key={index}>{line.message}</li>
        ))}
      </ol>
      {result && (
        <dl>
          {Object.entries(result.channels).map(([channel, euros]) => (
            <div key={channel}>
              <dt>{channel}</dt>
              <dd>{euros} €</dd>
            </div>
          ))}
        </dl>
      )}
    </>
  );
}
