import { narrowed, widenRow } from "../dense/reference.ts";
import { FLOAT_BYTES } from "../dense/template.ts";
import { BLOCK_ROWS, blocksOf } from "../layouts/layout.ts";
import type { FloatType, Groups, Shape } from "../model_spec.ts";
import { factorBytes, factorType, groupCount } from "./groups.ts";

/** A factor that the type of a model's factors does not hold exactly. */
export interface Inexact {
  row: number;
  group: number;
  value: number;
}

/**
 * Factors of groups as a packed file has them: [block][group][row of 32], in their type, those of padding
 * rows zero.
 *
 * @param factors (n, groups) float32.
 * @returns The bytes, or the first factor that its type does not hold.
 */
export function packFactors(
  groups: Groups,
  shape: Shape,
  factors: Float32Array,
): Uint8Array<ArrayBuffer> | Inexact {
  const type = factorType(groups)!;
  const count = groupCount(groups, shape.k);
  const bytes = new Uint8Array(factorBytes(groups, shape));
  const elements = elementsOf(bytes, type);
  for (let i = 0; i < factors.length; i++) {
    const [row, group] = [Math.floor(i / count), i % count];
    const bits = narrowed(factors[i], type);
    if (bits === null) return { row, group, value: factors[i] };
    elements[factorIndex(count, row, group)] = bits;
  }
  return bytes;
}

/** Back to (n, groups) float32. */
export function unpackFactors(groups: Groups, shape: Shape, bytes: Uint8Array): Float32Array {
  const count = groupCount(groups, shape.k);
  const all = widenRow(bytes, factorType(groups)!, blocksOf(shape.n) * count * BLOCK_ROWS, 0);
  return Float32Array.from(
    { length: shape.n * count },
    (_, i) => all[factorIndex(count, Math.floor(i / count), i % count)],
  );
}

function factorIndex(count: number, row: number, group: number): number {
  return (Math.floor(row / BLOCK_ROWS) * count + group) * BLOCK_ROWS + row % BLOCK_ROWS;
}

function elementsOf(bytes: Uint8Array<ArrayBuffer>, type: FloatType): Uint16Array | Uint32Array {
  return FLOAT_BYTES[type] === 4 ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
}
