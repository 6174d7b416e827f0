/** Events of several producers in the order in which they happen, for one consumer. */
export class EventQueue<T> {
  readonly #events: T[] = [];
  #producers = 0;
  #failure: { error: unknown } | null = null;
  #wake: () => void = () => {};

  /**
   * Takes everything from a source, whether anybody listens yet or not.
   *
   * @param failed Told of the error that ended the source; the consumer gets it too.
   */
  addSource(source: AsyncIterable<T>, failed: (error: unknown) => void): void {
    this.#producers++;
    this.#drain(source).catch((error) => {
      this.#failure ??= { error };
      failed(error);
    }).finally(() => {
      this.#producers--;
      this.#wake();
    });
  }

  async #drain(source: AsyncIterable<T>): Promise<void> {
    for await (const event of source) {
      this.#events.push(event);
      this.#wake();
    }
  }

  /** Ends when all sources have. @throws The first error of a source, after the events before it. */
  async *events(): AsyncGenerator<T> {
    while (true) {
      while (this.#events.length > 0) yield this.#events.shift()!;
      if (this.#failure !== null) throw this.#failure.error;
      if (this.#producers === 0) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}
