/** So many lines wait for a reader who has stopped reading; what comes then is lost, and counted. */
const MOST_WAITING = 10_000;

/**
 * Writes log lines without ever making a request wait: a full disk, or a terminal that was stopped
 * with Ctrl-S, costs lines and nothing else.
 */
export class LogWriter {
  readonly #waiting: string[] = [];
  #writing: Promise<void> | null = null;
  #lost = 0;

  /** @param write Writes a text some time, all writes in turn. May fail. */
  constructor(private readonly write: (text: string) => Promise<void>) {}

  /** Lines that could not be written. */
  get lost(): number {
    return this.#lost;
  }

  add(line: string): void {
    if (this.#waiting.length >= MOST_WAITING) {
      this.#lost++;
      return;
    }
    this.#waiting.push(line);
    this.#writing ??= this.#writeAll().finally(() => this.#writing = null);
  }

  /** Until all lines are written, or so long. */
  async flush(limitMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, limitMs));
    await Promise.race([this.#writing, limit]);
    clearTimeout(timer);
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.splice(0);
      try {
        await this.write(lines.join(""));
      } catch {
        this.#lost += lines.length;
      }
    }
  }
}
