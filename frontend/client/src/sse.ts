// Server-sent events as the HTML standard parses them, from bytes. Only `data` matters here.

/** Takes bytes as they come and gives the data of each event that they complete. */
export class SseParser {
  readonly #decoder = new TextDecoder();
  readonly #mostCharacters: number;
  #rest = "";
  #data: string[] = [];
  #size = 0;
  #afterReturn = false;

  /** @param mostCharacters an event that is longer is an error: a server that never ends one must not fill memory. */
  constructor(mostCharacters = 16 * 1024 * 1024) {
    this.#mostCharacters = mostCharacters;
  }

  push(bytes: Uint8Array): string[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    // A line ends with CR LF, LF or CR; the LF of a CR LF may come with the next bytes.
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterReturn = text === "" ? false : text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#rest + (lines[0] ?? "");
    this.#rest = lines.pop() ?? "";
    const events = lines.flatMap((line) => this.#line(line));
    if (this.#size + this.#rest.length > this.#mostCharacters) throw new RangeError("an event is too long");
    return events;
  }

  #line(line: string): string[] {
    if (line === "") {
      const event = this.#data.length === 0 ? [] : [this.#data.join("\n")];
      this.#data = [];
      this.#size = 0;
      return event;
    }
    if (line === "data" || line.startsWith("data:")) {
      const value = line.slice(5);
      this.#data.push(value.startsWith(" ") ? value.slice(1) : value);
      this.#size += value.length;
    }
    return [];
  }
}
