/**
 * GGUF's quantised types of float weights, which models have for embeddings and heads, as floats.
 *
 *     Q8_0   32 weights: f16 d, int8 q; d * q
 *     Q4_0   32: f16 d, 16 bytes of two nibbles, weights 0..15 in the low ones; d * (q - 8)
 *     Q5_0   32: f16 d, the fifth bits of all weights, 16 bytes as Q4_0; d * (q - 16)
 *     Q4_K   256: f16 d, f16 dmin, eight scales and eight minima of 6 bits, nibbles; d * s * q - dmin * m
 *     Q6_K   256: low nibbles, upper two bits, int8 scales of 16 weights, f16 d; d * s * (q - 32)
 *
 * Source: the gguf package's quants.py, whose float32 values these are.
 */
import type { FloatType } from "../../codegen/model_spec.ts";
import { STORED_BLOCKS } from "../../codegen/pack/stored.ts";
import { CheckpointError } from "../errors.ts";
import { valuesOf } from "../float_formats.ts";
import { type Dtype, layoutOf } from "./ggml_types.ts";
import { blockCodes, blockFactors, blockKindOf } from "./ternary_blocks.ts";

const f = Math.fround;

/** Writes the weights of the block that begins at `at` to `out` from `to` on. */
type Decode = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

const DECODERS: Partial<Record<Dtype, Decode>> = {
  Q8_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * (bytes[at + 2 + i] << 24 >> 24);
  },
  Q4_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 16; i++) {
      out[to + i] = d * ((bytes[at + 2 + i] & 15) - 8);
      out[to + 16 + i] = d * ((bytes[at + 2 + i] >> 4) - 8);
    }
  },
  Q5_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    const fifth = (i: number) => (bytes[at + 2 + (i >> 3)] >> (i & 7) & 1) << 4;
    for (let i = 0; i < 16; i++) {
      out[to + i] = d * ((bytes[at + 6 + i] & 15 | fifth(i)) - 16);
      out[to + 16 + i] = d * ((bytes[at + 6 + i] >> 4 | fifth(16 + i)) - 16);
    }
  },
  Q4_K(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    const least = halfAt(bytes, at + 2);
    for (let part = 0; part < 8; part++) {
      const { scale, minimum } = packedScales(bytes, at + 4, part);
      const [step, offset] = [f(d * scale), f(least * minimum)];
      const from = at + 16 + 32 * (part >> 1);
      const shift = 4 * (part & 1);
      for (let i = 0; i < 32; i++) {
        out[to + 32 * part + i] = f(step * (bytes[from + i] >> shift & 15)) - offset;
      }
    }
  },
  Q6_K(bytes, at, out, to) {
    const d = halfAt(bytes, at + 208);
    for (let i = 0; i < 256; i++) {
      const [half, inHalf] = [i >> 7, i & 127];
      const low = bytes[at + 64 * half + (inHalf & 63)] >> (4 * (inHalf >> 6)) & 15;
      const high = bytes[at + 128 + 32 * half + (inHalf & 31)] >> (2 * (inHalf >> 5)) & 3;
      const scale = bytes[at + 192 + (i >> 4)] << 24 >> 24;
      out[to + i] = f(d * scale) * ((low | high << 4) - 32);
    }
  },
};

/** Six bits each: of parts 0..3 together, of parts 4..7 in what is left of those and four more. */
function packedScales(bytes: Uint8Array, at: number, part: number) {
  if (part < 4) return { scale: bytes[at + part] & 63, minimum: bytes[at + part + 4] & 63 };
  const low = bytes[at + part + 4];
  return {
    scale: low & 15 | bytes[at + part - 4] >> 6 << 4,
    minimum: low >> 4 | bytes[at + part] >> 6 << 4,
  };
}

function halfAt(bytes: Uint8Array, at: number): number {
  return valuesOf("f16")[bytes[at] | bytes[at + 1] << 8];
}

/**
 * The float type in which rows of a type are given, or null for types that are none of floats. Half
 * precision has every ternary weight with a factor of its own exactly, and of others more digits than
 * the quantised type had.
 */
export function widenedType(dtype: Dtype): FloatType | null {
  if (dtype === "I2_S") return "f32";
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
 * @throws {CheckpointError} If half precision has none for one of them.
 */
export function floatBytes(
  values: Float32Array,
  type: FloatType,
  what: string,
): Uint8Array<ArrayBuffer> {
  if (type === "f32") return new Uint8Array(values.buffer as ArrayBuffer);
  const halves = Float16Array.from(values);
  const bad = halves.findIndex((half) => !Number.isFinite(half));
  if (bad < 0) return new Uint8Array(halves.buffer);
  throw new CheckpointError(
    `Cannot use ${what}: its values must be finite in half precision: element ${bad} is ` +
      `${values[bad]}, the file is damaged`,
  );
}
