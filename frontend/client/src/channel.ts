import type { ToHub } from "./messages.ts";
import type { Json, Kind, Position, TopicFrame } from "./protocol.ts";
import { advance, emptyView, type View } from "./view.ts";

/** Who listens to a topic in this tab. */
export interface Listener {
  /** The view is another one. */
  changed?(): void;
  event?(data: Json, at: Position & { readonly id: string | undefined }): void;
  /** Updates are missing that nobody has any more. */
  gap?(): void;
  refused?(code: string): void;
}

/** One topic in one tab, for all that listen to it here. */
export class Channel {
  readonly #listeners = new Set<Listener>();
  #view: View;
  #healing = false;
  /** Why the server does not give this topic. */
  refused: string | undefined;

  constructor(
    readonly kind: Kind,
    readonly topic: string,
    private readonly send: (message: ToHub) => void,
  ) {
    this.#view = emptyView(kind);
  }

  get view(): View {
    return this.#view;
  }

  get used(): boolean {
    return this.#listeners.size > 0;
  }

  /** Listens until the returned function is called. `after` counts for the first listener: the others join it where it is. */
  listen(listener: Listener, after?: Position): () => void {
    const first = !this.used;
    this.#listeners.add(listener);
    if (first) {
      this.refused = undefined;
      this.#view = emptyView(this.kind, after);
      this.want();
    }
    return () => {
      if (!this.#listeners.delete(listener) || this.used) return;
      this.send({ m: "drop", kind: this.kind, topic: this.topic });
      this.#view = emptyView(this.kind);
    };
  }

  /** Asks the hub for the topic from where this tab is. */
  want(): void {
    const { kind, topic } = this;
    const { epoch, offset } = this.#view;
    this.#healing = false;
    this.send({ m: "want", want: { topic, kind, epoch, offset } });
  }

  take(frame: TopicFrame): void {
    if (!this.used) return;
    const [view, outcome] = advance(this.#view, frame);
    this.#view = view;
    if (frame.t === "sub") this.#healing = false;
    switch (outcome.was) {
      case "changed":
        return this.#each((listener) => listener.changed?.());
      case "event": {
        const { data, offset, id } = outcome;
        return this.#each((listener) => listener.event?.(data, { epoch: view.epoch, offset, id }));
      }
      case "gap":
        return this.#each((listener) => {
          listener.gap?.();
          listener.changed?.();
        });
      case "hole":
        if (!this.#healing) {
          this.want();
          this.#healing = true;
        }
        return;
      case "nothing":
        return;
    }
  }

  refuse(code: string): void {
    this.refused = code;
    this.#each((listener) => {
      listener.refused?.(code);
      listener.changed?.();
    });
  }

  /** The workspace is another one: nothing that is known counts. */
  reset(): void {
    this.#view = emptyView(this.kind);
    this.#each((listener) => {
      listener.gap?.();
      listener.changed?.();
    });
  }

  #each(call: (listener: Listener) => void): void {
    for (const listener of [...this.#listeners]) {
      try {
        call(listener);
      } catch (error) {
        // One listener's fault is not the others'; it shows where uncaught errors show.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
