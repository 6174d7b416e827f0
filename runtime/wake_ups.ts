/** Readers that are woken in one turn of the event loop: each may write to a socket at once. */
const READERS_A_TURN = 8;

/**
 * Wakes readers of many streams, a few a turn of the event loop: a step has a token for each of them,
 * and what they do with it takes longer together than anybody else should wait. The first ones are
 * woken when the caller has come to an end, so after it has started the next step.
 */
class WakeUps {
  readonly #waiting: (() => void)[] = [];
  #isDraining = false;

  add(wake: () => void): void {
    this.#waiting.push(wake);
    if (this.#isDraining) return;
    this.#isDraining = true;
    queueMicrotask(() => this.#drain());
  }

  #drain(): void {
    for (const wake of this.#waiting.splice(0, READERS_A_TURN)) wake();
    if (this.#waiting.length > 0) setImmediate(() => this.#drain());
    else this.#isDraining = false;
  }
}

/** Of this process: there is one event loop. */
export const wakeUps = new WakeUps();
