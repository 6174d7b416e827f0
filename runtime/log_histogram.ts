/** Bins of a factor of two: quantiles are right within 0.6 %. */
const BINS = 128;
/** Numbers below 2^-80 count as that, those above 2^48 as that. */
const LEAST_EXPONENT = -80;
const MOST_EXPONENT = 48;

/** Counts numbers >= 0 by their logarithms, so that quantiles of any number of them take one memory. */
export class LogHistogram {
  readonly #counts = new Float64Array((MOST_EXPONENT - LEAST_EXPONENT) * BINS + 1);
  #zeros = 0;
  #count = 0;

  add(value: number): void {
    this.#count++;
    if (value === 0) this.#zeros++;
    else this.#counts[binOf(value)]++;
  }

  /** Least number that is not below a share of all: the upper end of its bin. 0 of none. */
  quantile(share: number): number {
    const wanted = share * this.#count;
    let seen = this.#zeros;
    if (seen >= wanted) return 0;
    for (let bin = 0; bin < this.#counts.length; bin++) {
      seen += this.#counts[bin];
      if (seen >= wanted) return 2 ** (LEAST_EXPONENT + (bin + 1) / BINS);
    }
    return 2 ** MOST_EXPONENT;
  }
}

function binOf(value: number): number {
  const exponent = Math.min(Math.max(Math.log2(value), LEAST_EXPONENT), MOST_EXPONENT);
  return Math.floor((exponent - LEAST_EXPONENT) * BINS);
}
