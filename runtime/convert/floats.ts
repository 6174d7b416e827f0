/** Float tensors in another type, and in pieces. */
import type { FloatType } from "../../codegen/model_spec.ts";
import { CheckpointError, shown } from "../errors.ts";
import { toFloat32, valuesOf } from "../float_formats.ts";
import { free } from "../free.ts";
import type { FloatMatrix } from "../weights.ts";
import { rowChunks } from "./plan.ts";

export const FLOAT_BYTES: Readonly<Record<FloatType, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Bits of the upper half of a float32, ties to even; numbers only. */
function bfloatBits(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word) => (word + 0x7fff + (word >>> 16 & 1)) >>> 16);
}

/** Little-endian elements of a type; numbers that are between two of its values go to the nearer one. */
export function floatsAs(values: Float32Array, type: FloatType): Uint8Array<ArrayBuffer> {
  if (type === "f32") return new Uint8Array(Float32Array.from(values).buffer);
  if (type === "f16") return new Uint8Array(Float16Array.from(values).buffer);
  return new Uint8Array(bfloatBits(values).buffer as ArrayBuffer);
}

/**
 * Elements in another type, as they are where it is the same.
 *
 * @throws {CheckpointError} If a number does not fit in it.
 */
export function convertFloats(
  bytes: Uint8Array<ArrayBuffer>,
  from: FloatType,
  to: FloatType,
  what: string,
): Uint8Array<ArrayBuffer> {
  if (from === to) return bytes;
  const values = toFloat32(bytes, from);
  const converted = floatsAs(values, to);
  if (to === "f16") checkFits(values, converted, what);
  return converted;
}

function checkFits(values: Float32Array, converted: Uint8Array<ArrayBuffer>, what: string): void {
  const halves = new Uint16Array(converted.buffer, converted.byteOffset, values.length);
  const table = valuesOf("f16");
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(table[halves[i]])) continue;
    throw new CheckpointError(
      `Cannot write ${shown(what)} in F16 as its numbers must be finite and below 65,520: ` +
        `element ${i} is ${values[i]}, use --embedding-type bf16 or f32`,
    );
  }
}

/** A float matrix in a type, in pieces, each until the next is asked for. */
export async function* matrixChunks(
  matrix: FloatMatrix,
  type: FloatType,
  what: string,
): AsyncGenerator<Uint8Array> {
  const rowBytes = matrix.columns * FLOAT_BYTES[matrix.type];
  for (const { first, count } of rowChunks(matrix.rows, rowBytes)) {
    const bytes = await matrix.readRows(first, count);
    const converted = convertFloats(bytes, matrix.type, type, what);
    yield converted;
    free(bytes, converted);
  }
}
