import { useState } from "react";
import { useTokenStream } from "@raptorflow/redis/react";
import { ask } from "./requests.ts";

/** An agent's answer, word by word, in every window that has the campaign open. */
export function Agent({ campaign, question }: { readonly campaign: string; readonly question: number }) {
  const [failed, setFailed] = useState("");
  const start = (): void => {
    setFailed("");
    ask("answers", { campaign }).catch((error: unknown) => setFailed(String(error)));
  };
  return (
    <section aria-labelledby="agent" className="agent">
      <h2 id="agent">The agent</h2>
      {question === 0 ? (
        <p className="answer hint">Ask it, then load the page again while it writes: nothing is lost.</p>
      ) : (
        <Answer topic={`answer:${campaign}-${question}`} />
      )}
      <button onClick={start}>{question === 0 ? "Ask for an opinion" : "Ask again"}</button>
      {failed && <p className="failed" role="alert">{failed}</p>}
    </section>
  );
}

function Answer({ topic }: { readonly topic: `answer:${string}` }) {
  const { text, done } = useTokenStream(topic);
  return (
    <p className="answer" aria-live="polite" aria-busy={!done}>
      {text}
      {!done && <span className="caret" />}
    </p>
  );
}
