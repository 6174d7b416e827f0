/** Longest that work on the event loop may go on before timers, sockets and signals get a turn. */
export const MOST_BUSY_MS = 4;

/** One turn of the event loop. */
export function pause(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Tells when it is time to pause. */
export class BusyClock {
  #sinceMs = performance.now();

  get isLate(): boolean {
    return performance.now() - this.#sinceMs > MOST_BUSY_MS;
  }

  /** Lets the event loop turn, and starts anew. */
  async pause(): Promise<void> {
    await pause();
    this.restart();
  }

  restart(): void {
    this.#sinceMs = performance.now();
  }
}
