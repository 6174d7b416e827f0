import { dot, exp, laneSum } from "../float_reference.ts";

const f = Math.fround;

/** The experts of one token, best first, and what each one's output counts. */
export interface Routing {
  experts: number[];
  weights: Float32Array;
}

/**
 * Picks a token's experts: the `picks` largest of the scores x . row, of equal ones those with the
 * lower number, weighted by the softmax over the picked scores. That is the softmax over all scores
 * divided by its sum over the picked, as both have the same denominator; and as exp never falls, the
 * largest scores are the largest probabilities, without the ties that rounding of exp would make.
 *
 * @param x (hiddenSize,) normed, not quantised. @param router Row of an expert, (hiddenSize,).
 * @returns Ranks in falling order of the score.
 *
 * Source: Mixtral, arXiv 2401.04088, section 2.1; llama.cpp's graph of `maple`.
 */
export function route(
  x: Float32Array,
  router: (expert: number) => Float32Array,
  numExperts: number,
  picks: number,
): Routing {
  const scores = Float32Array.from({ length: numExperts }, (_, e) => dot(x, router(e)));
  const experts = largest(scores, picks);
  const exps = experts.map((e) => exp(f(scores[e] - scores[experts[0]])));
  const inverse = f(1 / laneSum(picks, (rank) => exps[rank]));
  return { experts, weights: Float32Array.from(exps, (e) => f(e * inverse)) };
}

/** Indices of the largest values, falling; of equal ones the lower first. */
function largest(values: Float32Array, count: number): number[] {
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) {
    let rank = found.length;
    while (rank > 0 && values[i] > values[found[rank - 1]]) rank--;
    if (rank < count) found.splice(rank, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}

/**
 * Sum over ranks of weight * output, in the order of the ranks: no other token, and no other
 * thread, changes it.
 *
 * @param outputs (hiddenSize,) of each rank's expert.
 */
export function weightedSum(weights: Float32Array, outputs: readonly Float32Array[]): Float32Array {
  const y = new Float32Array(outputs[0].length);
  outputs.forEach((output, rank) => {
    for (let i = 0; i < y.length; i++) y[i] = f(y[i] + f(weights[rank] * output[i]));
  });
  return y;
}
