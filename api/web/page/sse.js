/** Reads text/event-stream, piece by piece. Comments, which keep connections alive, are left out. */
export class EventParser {
  #rest = "";
  #data = [];

  /**
   * @param {string} text The next piece of the stream.
   * @returns {string[]} The data of each event that it completes.
   */
  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line) {
    if (line === "") {
      const event = this.#data.join("\n");
      const isEvent = this.#data.length > 0;
      this.#data = [];
      return isEvent ? [event] : [];
    }
    const field = /^data:? ?(.*)$/s.exec(line);
    if (field !== null) this.#data.push(field[1]);
    return [];
  }
}

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string>} The data of each event.
 */
export async function* eventsOf(body) {
  const parser = new EventParser();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
