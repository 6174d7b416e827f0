/**
 * GGUF's quantised types of float weights, which models have for embeddings and heads, as floats; and
 * ternary types as floats.
 */
import type { FloatType } from "../../codegen/model_spec.ts";
import { STORED_BLOCKS } from "../../codegen/pack/stored.ts";
import { CheckpointError } from "../errors.ts";
import { DECODERS, halfAt } from "./float_decoders.ts";
import { type Dtype, layoutOf } from "./ggml_types.ts";
import { blockCodes, blockFactors, blockKindOf } from "./ternary_blocks.ts";

/**
 * The float type in which rows of a type are given, or null for types that are none of floats. Half
 * precision has every ternary weight with a factor of its own exactly, and of others more digits than
 * the quantised type had.
 */
export function widenedType(dtype: Dtype): FloatType | null {
  if (dtype === "I2_S") return "f32";
  if (dtype === "Q2_0_BF16") return "bf16";
  return blockKindOf(dtype) !== null || DECODERS[dtype] !== undefined ? "f16" : null;
}

/** Values of whole blocks. @param matrix Factor of an I2_S matrix, which stands behind all of it. */
export function widened(bytes: Uint8Array, dtype: Dtype, what: string, matrix = 1): Float32Array {
  const { blockWeights, blockBytes } = layoutOf(dtype);
  const kind = blockKindOf(dtype);
  if (kind !== null) return widenedTernary(bytes, dtype, what, matrix);
  const decode = DECODERS[dtype]!;
  const blocks = bytes.length / blockBytes;
  const out = new Float32Array(blocks * blockWeights);
  for (let i = 0; i < blocks; i++) decode(bytes, i * blockBytes, out, i * blockWeights);
  return out;
}

/**
 * Types of floats in which converters write ternary models as well, and of how many steps the magnitude of
 * a block's largest weight is. Other types round ternary weights to several magnitudes.
 */
const TERNARY_STEPS: Partial<Record<Dtype, number>> = { Q8_0: 127, Q4_0: 8, Q5_0: 16 };

/** Such types. */
export const ROUNDED_TERNARY = Object.keys(TERNARY_STEPS) as readonly Dtype[];

/**
 * As `widened`, for weights that were ternary before they were written as Q8_0, Q4_0 or Q5_0. The latter
 * two have one step more below 0 than above, so that of f, 0, -f they keep one of the two magnitudes
 * and clip the other: a block in which nothing else occurs gets it back.
 */
export function widenedAsTernary(bytes: Uint8Array, dtype: Dtype, what: string): Float32Array {
  const values = widened(bytes, dtype, what);
  const steps = TERNARY_STEPS[dtype]!;
  if (dtype === "Q8_0") return values;
  const { blockWeights, blockBytes } = layoutOf(dtype);
  for (let block = 0; block * blockBytes < bytes.length; block++) {
    const weights = values.subarray(block * blockWeights, (block + 1) * blockWeights);
    const step = halfAt(bytes, block * blockBytes);
    const [least, most] = [-steps * step, (steps - 1) * step];
    if (!weights.every((w) => w === 0 || w === least || w === most)) continue;
    weights.forEach((w, i) => weights[i] = w === most ? -least : w);
  }
  return values;
}

function widenedTernary(
  bytes: Uint8Array,
  dtype: Dtype,
  what: string,
  matrix: number,
): Float32Array {
  const kind = blockKindOf(dtype)!;
  const { weights, bytes: blockBytes } = STORED_BLOCKS[kind];
  const k = bytes.length / blockBytes * weights;
  const codes = blockCodes({ kind, bytes: bytes as Uint8Array<ArrayBuffer>, n: 1, k });
  const factors = kind === "i2s" ? null : blockFactors(bytes, kind, k, what);
  return Float32Array.from(
    codes,
    (code, i) => (code - 1) * (factors?.[Math.floor(i / weights)] ?? matrix),
  );
}

/**
 * Floats as little-endian bytes of their type.
 *
 * @param values For bfloat16, such as it has.
 * @throws {CheckpointError} If a type of 16 bits has none for one of them.
 */
export function floatBytes(
  values: Float32Array,
  type: FloatType,
  what: string,
): Uint8Array<ArrayBuffer> {
  if (type === "f32") return new Uint8Array(values.buffer as ArrayBuffer);
  const halves = type === "f16" ? Float16Array.from(values) : values;
  const bad = halves.findIndex((half) => !Number.isFinite(half));
  if (bad < 0) return type === "f16" ? new Uint8Array(halves.buffer as ArrayBuffer) : upper(values);
  throw new CheckpointError(
    `Cannot use ${what}: its values must be finite in 16 bits: element ${bad} is ` +
      `${values[bad]}, the file is damaged`,
  );
}

/** The upper halves of float32 values. */
function upper(values: Float32Array): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
