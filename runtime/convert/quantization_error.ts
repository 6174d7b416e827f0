/** What ternarising a float matrix loses. */
import { floatsOf } from "../ternary.ts";
import type { TernaryMatrix } from "./source.ts";

export interface QuantizationError {
  tensor: string;
  /** |W - scale * T| / |W| in the Frobenius norm: 0 where nothing is lost. */
  relativeError: number;
  /** Share of weights that became 0. */
  zeros: number;
  scale: number;
}

/** @param matrix Of one factor, read from floats. */
export function quantizationError({ what, codes, factors, stored }: TernaryMatrix) {
  const [scale] = factors;
  const { elements, values } = floatsOf(stored);
  let squares = 0, lost = 0, zeros = 0;
  for (let i = 0; i < codes.length; i++) {
    const weight = values === null ? elements[i] : values[elements[i]];
    const difference = weight - scale * (codes[i] - 1);
    squares += weight * weight;
    lost += difference * difference;
    // Of the codes 0, 1 and 2.
    zeros += codes[i] & 1;
  }
  return {
    tensor: what.replace(/^"|"$/g, ""),
    relativeError: squares === 0 ? 0 : Math.sqrt(lost / squares),
    zeros: zeros / codes.length,
    scale,
  };
}
