import { BusyClock } from "../runtime/pause.ts";

/**
 * Lets requests that arrive at the same moment in one after the other, so that what has to be done at
 * the beginning of each (reading JSON, rendering a template) does not keep the event loop from
 * turning.
 */
export class Turns {
  readonly #clock = new BusyClock();
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  /** Resolves when the caller may work for a few milliseconds. */
  async take(): Promise<void> {
    // Nobody was here before: the time since is not anybody's work.
    if (this.#waiting++ === 0) this.#clock.restart();
    const before = this.#last;
    this.#last = before.then(() => this.#clock.isLate ? this.#clock.pause() : undefined);
    await this.#last;
    this.#waiting--;
  }
}
