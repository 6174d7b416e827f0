/** Keeps long work polite: it gives way to the event loop and ends where it grows out of bounds. */
import { setImmediate } from "node:timers/promises";
import { GrammarError } from "./types.ts";

/** Half of the 8 ms that other work may have to wait, as the parts between two looks take time too. */
const SLICE_MS = 4;
/** About a second of work: states, edges and items that are looked at. */
const MAX_UNITS = 8_000_000;

export class Workload {
  #since = performance.now();
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
    if (performance.now() - this.#since < SLICE_MS) return;
    await setImmediate();
    this.#since = performance.now();
  }
}
