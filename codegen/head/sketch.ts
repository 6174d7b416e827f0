import type { TernaryLayout } from "../layouts/layout.ts";
import { hasSketch, type ModelSpec, SKETCH_ROWS, sketchShape } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { randomOf } from "../random.ts";

/**
 * The sketch of a head: each row w of the matrix (vocabSize, hiddenSize) in 9 levels, with which a
 * decoded token finds the few rows that can be among its largest logits. 3.3 to 4 bits a weight are
 * read in place of 16, by the ternary linears that the model has anyway.
 *
 * A row's levels are q = -4 .. 4, w ~ scale * (q - u), with scale = max |w| / 4 and
 * q = round(w / scale + u). The dither u, (hiddenSize,) uniform in (-0.5, 0.5), is the same for all
 * rows, so that sum(u * x) is one number a token. The input x is rounded to int8 in the same way
 * with another dither v: X = round(x / step + v), x ~ step * (X - v), step = max |x| / 126.5.
 * A level is two trits, q = 3 a + b: two rows of a ternary matrix.
 *
 * **What is certain.** The error of a logit is
 *
 *     w . x - estimate = step * sum(w * f) + scale * sum(e * x'),   x' = step * (X - v)
 *
 * with f and e the errors of the two roundings. Subtractive dither makes them independent and
 * uniform in (-0.5, 0.5), whatever w and x are (Schuchman 1964; Gray and Stockham 1993, "Dithered
 * quantizers"). A uniform variable is sub-Gaussian with its own variance, 1/12, so for any m each
 * sum is below -m * sqrt(variance) with a chance of at most exp(-m^2 / 2):
 *
 *     error > -m / sqrt(12) * (step * |w| + scale * |x'|) =: -margin    but for 2 exp(-m^2 / 2)
 *
 * The row with the largest logit, or the c largest ones, are given by w and x, not by the dithers. So
 * only their c errors count, not those of the whole vocabulary: a miss, one of these c rows whose
 * estimate + margin is below the c-th largest exact logit found, has a chance of at most
 * 2 c exp(-m^2 / 2). `marginOf` makes that 1e-9.
 *
 * The dithers come from a generator of random numbers with a fixed seed, not from dice: the chance is
 * over seeds. A wider margin of 1e-4 of itself and of 2e-5 |w| |x| covers all rounding errors of the
 * float arithmetic, those of the full head's own sums included.
 */

/** Most logit rows of a step that use the sketch: more of them share the full head's bytes better. */
export const SKETCH_TOKENS = 64;

/** Most exact logits that the sketch finds; who needs more needs the full head. */
export const SKETCH_CANDIDATES = 256;

/** Levels of a weight, from -4 to 4. */
export const LARGEST_LEVEL = 4;

/** Input codes go to 126.5 before dither is added, so that none passes 127. */
export const INPUT_CODES = 126.5;

/** Part of |w| |x| that all rounding errors of one logit stay below: 165 roundings of 2^-24, twice. */
export const FLOAT_SLACK = 2e-5;

/** Pieces of the sketch; the last may have rows past the vocabulary's end, of zeros. */
export function sketchPieces({ vocabSize }: ModelSpec): number {
  return Math.ceil(vocabSize / SKETCH_ROWS);
}

/** The sketch's parts in the packed file, in order, in bytes. */
export function sketchSizes(
  spec: ModelSpec,
  layout: TernaryLayout,
): readonly (readonly [name: string, bytes: number])[] {
  if (!hasSketch(spec)) return [];
  const { n, k } = sketchShape(spec);
  const pieces = sketchPieces(spec);
  return [
    ["sketch_dither", 2 * paddedFloats(spec.hiddenSize) * 4],
    ["sketch_codes", pieces * layout.packedBytes(n, k)],
    ["sketch_rows", pieces * PARAMETERS * SKETCH_ROWS * 4],
  ];
}

/** Floats of a row beside its levels: scale, sum(q * v), |w|; a piece has all scales first. */
export const PARAMETERS = 3;

/** u then v, each (paddedFloats(hiddenSize),) with zeros behind the features. */
export function sketchDither(hiddenSize: number): Float32Array<ArrayBuffer> {
  const padded = paddedFloats(hiddenSize);
  const dither = new Float32Array(2 * padded);
  const random = randomOf(0x5ce7c4);
  for (let part = 0; part < 2; part++) {
    for (let i = 0; i < hiddenSize; i++) {
      // 24 bits, of the middle of each 2^-24: never -0.5 or 0.5.
      dither[part * padded + i] = (Math.floor(random() * 2 ** 24) + 0.5) / 2 ** 24 - 0.5;
    }
  }
  return dither;
}

/** m / sqrt(12) of the margin with which one of `candidates` rows is missed once in 1e9 tokens. */
export function marginOf(candidates: number): number {
  return Math.sqrt(2 * Math.log(2 * candidates * 1e9) / 12) * 1.0001;
}
