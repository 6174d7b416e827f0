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

/**
 * Lets one caller in a turn of the event loop: where what follows goes on after many awaits, so that
 * a clock sees none of it at the time of asking.
 */
export class OneATurn {
  readonly #waiting: (() => void)[] = [];
  #isTaken = false;

  take(): Promise<void> {
    if (this.#isTaken) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#isTaken = true;
    setImmediate(() => this.#next());
    return Promise.resolve();
  }

  #next(): void {
    const wake = this.#waiting.shift();
    if (wake === undefined) {
      this.#isTaken = false;
      return;
    }
    wake();
    setImmediate(() => this.#next());
  }
}
