/** One dialog at a time: to confirm what destroys, after a dry run that tells how much; and to show a thing whole. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { change, type Problem } from "./api";
import { changed } from "./live";

interface Confirmation {
  title: string;
  body: ComponentChildren;
  button: string;
  danger: boolean;
  run: () => Promise<string>;
}

const open = signal<Confirmation | { title: string; body: ComponentChildren } | null>(null);
const busy = signal(false);
const result = signal("");
const failure = signal("");

/** Shows something whole. */
export function show(title: string, body: ComponentChildren): void {
  reset();
  open.value = { title, body };
}

/** Asks before it does. `run` answers with what was done, for people. */
export function confirm(confirmation: Confirmation): void {
  reset();
  open.value = confirmation;
}

/** An action of the API behind a confirmation. */
export function confirmAction<T>(what: {
  title: string;
  body: ComponentChildren;
  button: string;
  danger?: boolean;
  path: string;
  words?: unknown;
  method?: "POST" | "DELETE" | "PUT";
  done: (answer: T) => string;
}): void {
  confirm({
    title: what.title,
    body: what.body,
    button: what.button,
    danger: what.danger ?? false,
    run: async () => what.done(await change<T>(what.path, what.words ?? {}, what.method)),
  });
}

function reset(): void {
  busy.value = false;
  result.value = "";
  failure.value = "";
}

export function Dialogs() {
  const box = useRef<HTMLDialogElement>(null);
  const shown = open.value;
  useEffect(() => {
    if (shown !== null) box.current?.showModal();
    else box.current?.close();
  }, [shown]);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    if (shown === null || !("run" in shown) || result.value) {
      open.value = null;
      return;
    }
    busy.value = true;
    failure.value = "";
    try {
      result.value = await shown.run();
      changed();
    } catch (error) {
      failure.value = (error as Problem).message;
    }
    busy.value = false;
  }

  return (
    // Not `onClose`: that comes a moment after the end, and would end the next one that was opened meanwhile.
    <dialog ref={box} aria-labelledby="dialog-title" onCancel={() => (open.value = null)}>
      {shown !== null && (
        <form onSubmit={(event) => void submit(event)}>
          <h2 id="dialog-title">{shown.title}</h2>
          {!result.value && <div>{shown.body}</div>}
          <div role="status">{result.value && <p class="note good">{result.value}</p>}</div>
          <div role="alert">{failure.value && <p class="note bad">{failure.value}</p>}</div>
          <div class="actions">
            {"run" in shown && !result.value && (
              <button type="submit" class={shown.danger ? "danger" : "main"} disabled={busy.value}>
                {busy.value ? "Working …" : shown.button}
              </button>
            )}
            <button type="button" onClick={() => (open.value = null)} autofocus={!("run" in shown)}>
              {"run" in shown && !result.value ? "Cancel" : "Close"}
            </button>
          </div>
        </form>
      )}
    </dialog>
  );
}
