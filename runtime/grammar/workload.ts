/** Keeps long work polite: it gives way to the event loop and ends where it grows out of bounds. */
import { BusyClock } from "../pause.ts";
import { GrammarError } from "./types.ts";

/** About a second of work: states, edges and items that are looked at. */
const MAX_UNITS = 8_000_000;

export class Workload {
  readonly #clock = new BusyClock();
  #unitsLeft: number;

  constructor(maxUnits = MAX_UNITS) {
    this.#unitsLeft = maxUnits;
  }

  /** @throws {GrammarError} If this is more than a grammar may need. */
  spend(units: number): void {
    this.#unitsLeft -= units;
    if (this.#unitsLeft >= 0) return;
    throw new GrammarError(
      "Cannot compile this grammar as it takes too much work: " +
        "use fewer alternatives, smaller repetitions or a smaller schema",
    );
  }

  /** Lets other work come in if it has waited for long enough. */
  async pause(): Promise<void> {
    if (this.#clock.isLate) await this.#clock.pause();
  }
}
