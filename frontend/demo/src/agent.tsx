import { useState } from "react";
import { useTokenStream } from "@raptorflow/redis/react";
import { ask } from "./requests.ts";

/** An agent's answer, word by word, in every window that has the campaign open. */
export function Agent({ campaign }: { readonly campaign: string }) {
  const { text, done } = useTokenStream(`answer:${campaign}`);
  const [failed, setFailed] = useState("");
  const running = text !== "" && !done;
  const start = (): void => {
    setFailed("");
    ask("answers", { campaign }).catch((error: unknown) => setFailed(String(error)));
  };
  return (
    <section aria-labelledby="agent" className="agent">
      <h2 id="agent">
        The agent <small>{running ? "writing" : done ? "done" : ""}</small>
      </h2>
      <p className="answer" aria-live="polite" aria-busy={running}>
        {text || <span className="hint">Ask it, then load the page again while it writes: nothing is lost.</span>}
        {running && <span className="caret" />}
      </p>
      <button onClick={start} disabled={running}>
        {done ? "Ask again" : "Ask for an opinion"}
      </button>
      {failed && <p className="failed" role="alert">{failed}</p>}
    </section>
  );
}
