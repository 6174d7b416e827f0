/**
 * Blocks of GGUF's quantised types of float weights.
 *
 *     Q8_0   32 weights: f16 d, int8 q; d * q
 *     Q4_0   32: f16 d, 16 bytes of two nibbles, weights 0..15 in the low ones; d * (q - 8)
 *     Q4_1   32: f16 d, f16 m, nibbles as Q4_0; d * q + m
 *     Q5_0   32: f16 d, the fifth bits of all weights, 16 bytes as Q4_0; d * (q - 16)
 *     Q5_1   32: f16 d, f16 m, fifth bits, nibbles; d * q + m
 *     IQ4_NL 32: f16 d, nibbles as Q4_0, which number the values of a table
 *     Q2_K   256: scales and minima of 16 weights (nibbles), two bits a weight, f16 d, f16 dmin;
 *            d * s * q - dmin * m
 *     Q3_K   256: third bits, lower two bits, 16 scales of 6 bits, f16 d; d * (s - 32) * (q - 4)
 *     Q4_K   256: f16 d, f16 dmin, eight scales and eight minima of 6 bits, nibbles; d * s * q - dmin * m
 *     Q5_K   256: as Q4_K, with the fifth bits of all weights before the nibbles
 *     Q6_K   256: low nibbles, upper two bits, int8 scales of 16 weights, f16 d; d * s * (q - 32)
 *
 * Source: the gguf package's quants.py, whose float32 values these are.
 */
import { valuesOf } from "../float_formats.ts";
import type { Dtype } from "./ggml_types.ts";

const f = Math.fround;

/** Writes the weights of the block that begins at `at` to `out` from `to` on. */
type Decode = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

export const DECODERS: Partial<Record<Dtype, Decode>> = {
  Q8_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * (bytes[at + 2 + i] << 24 >> 24);
  },
  Q4_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * (nibble(bytes, at + 2, i) - 8);
  },
  Q4_1(bytes, at, out, to) {
    const [d, m] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let i = 0; i < 32; i++) out[to + i] = f(d * nibble(bytes, at + 4, i)) + m;
  },
  Q5_0(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * (fiveBits(bytes, at + 2, i) - 16);
  },
  Q5_1(bytes, at, out, to) {
    const [d, m] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let i = 0; i < 32; i++) out[to + i] = f(d * fiveBits(bytes, at + 4, i)) + m;
  },
  IQ4_NL(bytes, at, out, to) {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * IQ4_NL_VALUES[nibble(bytes, at + 2, i)];
  },
  Q2_K(bytes, at, out, to) {
    const [d, least] = [halfAt(bytes, at + 80), halfAt(bytes, at + 82)];
    for (let i = 0; i < 256; i++) {
      const scales = bytes[at + (i >> 4)];
      const q = twoBits(bytes, at + 16, i);
      out[to + i] = f(f(d * (scales & 15)) * q) - f(least * (scales >> 4));
    }
  },
  Q3_K(bytes, at, out, to) {
    const d = halfAt(bytes, at + 108);
    for (let i = 0; i < 256; i++) {
      const third = bytes[at + (i & 31)] >> (i >> 5) & 1;
      const q = twoBits(bytes, at + 32, i) - (third === 1 ? 0 : 4);
      out[to + i] = f(d * (sixBitScale(bytes, at + 96, i >> 4) - 32)) * q;
    }
  },
  Q4_K(bytes, at, out, to) {
    kBlock(bytes, at, out, to, (i) => kNibble(bytes, at + 16, i));
  },
  Q5_K(bytes, at, out, to) {
    const fifth = (i: number) => (bytes[at + 16 + (i & 31)] >> (i >> 5) & 1) << 4;
    kBlock(bytes, at, out, to, (i) => kNibble(bytes, at + 48, i) | fifth(i));
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

const IQ4_NL_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

export function halfAt(bytes: Uint8Array, at: number): number {
  return valuesOf("f16")[bytes[at] | bytes[at + 1] << 8];
}

/** Of 32 weights in 16 bytes. */
function nibble(bytes: Uint8Array, at: number, i: number): number {
  return bytes[at + (i & 15)] >> (4 * (i >> 4)) & 15;
}

/** The fifth bits of 32 weights, then their nibbles. */
function fiveBits(bytes: Uint8Array, at: number, i: number): number {
  return nibble(bytes, at + 4, i) | (bytes[at + (i >> 3)] >> (i & 7) & 1) << 4;
}

/** Of 256 weights: 32 bytes hold four runs of 32. */
function twoBits(bytes: Uint8Array, at: number, i: number): number {
  return bytes[at + 32 * (i >> 7) + (i & 31)] >> (2 * (i >> 5 & 3)) & 3;
}

/** Of 256 weights: 32 bytes hold two runs of 32. */
function kNibble(bytes: Uint8Array, at: number, i: number): number {
  return bytes[at + 32 * (i >> 6) + (i & 31)] >> (4 * (i >> 5 & 1)) & 15;
}

/** Scale `part` of 16: low nibbles in eight bytes, upper two bits in the four bytes behind them. */
function sixBitScale(bytes: Uint8Array, at: number, part: number): number {
  const low = bytes[at + (part & 7)] >> (4 * (part >> 3)) & 15;
  return low | (bytes[at + 8 + (part & 3)] >> (2 * (part >> 2)) & 3) << 4;
}

/** Runs of 32 weights with a scale and a minimum each. @param quant The integer of a weight. */
function kBlock(
  bytes: Uint8Array,
  at: number,
  out: Float32Array,
  to: number,
  quant: (i: number) => number,
): void {
  const [d, least] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
  for (let part = 0; part < 8; part++) {
    const { scale, minimum } = packedScales(bytes, at + 4, part);
    const [step, offset] = [f(d * scale), f(least * minimum)];
    for (let i = 32 * part; i < 32 * part + 32; i++) out[to + i] = f(step * quant(i)) - offset;
  }
}

/** Six bits each: of parts 0..3 together, of parts 4..7 in what is left of those and four more. */
function packedScales(bytes: Uint8Array, at: number, part: number) {
  if (part < 4) return { scale: bytes[at + part] & 63, minimum: bytes[at + part + 4] & 63 };
  const low = bytes[at + part + 4];
  return {
    scale: low & 15 | bytes[at + part - 4] >> 6 << 4,
    minimum: low >> 4 | bytes[at + part] >> 6 << 4,
  };
}
