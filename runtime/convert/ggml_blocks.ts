/**
 * Ternary matrices as GGUF files keep them, and back. Code 0, 1, 2 is weight -1, 0, +1 times a factor.
 *
 * All but I2_S have a factor in half precision for each block of a row (256 weights of TQ1_0 and TQ2_0,
 * 64 of Q2_0, 128 of PQ2_0); that of a block of zeros is 0, as llama.cpp's own quantizer writes it.
 * I2_S has one float32 a matrix.
 *
 * Sources: llama.cpp's ggml-quants.c (quantize_row_tq1_0_ref, quantize_row_tq2_0_ref and
 * quantize_row_q2_0_ref); microsoft/BitNet's ggml-bitnet-mad.cpp, its layout of 128 weights for x86;
 * PrismML's ggml-quants.c for PQ2_0, which is Q2_0 with longer blocks.
 */
import { FOUR_ZEROS, wordsOf } from "../code_words.ts";
import { RangeFault } from "./errors.ts";
import type { TernaryType } from "./formats.ts";

/** Bytes that hold a block of I2_S, and what stands behind a matrix. */
const I2S_BYTES = 32;
const I2S_TAIL_BYTES = 32;

/** A ternary matrix to write: codes (n, k), one a byte, row-major. */
export interface CodedMatrix {
  codes: Uint8Array;
  n: number;
  k: number;
  /** The factor of the weights of a row from a column on, as far as a block goes. */
  factorAt(row: number, column: number): number;
}

/** How a matrix is kept; those whose rows no block divides in half precision. */
export type CodedType = TernaryType | "f16";

/** Half precision bits of a number, ties to even. */
export function halfBits(value: number): number {
  return new Uint16Array(Float16Array.of(value).buffer)[0];
}

const HALF_ONE = 0x3c00;
const HALF_SIGN = 0x8000;

/** Stored byte of five trits as a number of base 3: ceil(v * 256 / 243). */
const TRIT_BYTES = Uint8Array.from({ length: 243 }, (_, v) => Math.ceil(v * 256 / 243));

interface BlockFormat {
  weights: number;
  bytes: number;
  /** Where the factor is. */
  factorAt: number;
  /** Puts codes, four a word from word `from` on, into the block at `at`. */
  encode(codes: Uint32Array, from: number, out: DataView, at: number): void;
}

const BLOCKS: Readonly<Record<Exclude<TernaryType, "i2_s">, BlockFormat>> = {
  tq1_0: {
    weights: 256,
    bytes: 54,
    factorAt: 52,
    encode(codes, from, out, at) {
      for (let j = 0; j < 8; j++) putTrits(fiveTrits(codes, from + j, 8), out, at + 4 * j);
      for (let j = 0; j < 4; j++) {
        putTrits(fiveTrits(codes, from + 40 + j, 4), out, at + 32 + 4 * j);
      }
      const [a, b, c, d] = codes.subarray(from + 60, from + 64);
      putTrits(3 * (27 * a + 9 * b + 3 * c + d), out, at + 48);
    },
  },
  tq2_0: {
    weights: 256,
    bytes: 66,
    factorAt: 64,
    encode(codes, from, out, at) {
      for (let half = 0; half < 2; half++) {
        for (let j = 0; j < 8; j++) {
          const i = from + 32 * half + j;
          const word = codes[i] | codes[i + 8] << 2 | codes[i + 16] << 4 | codes[i + 24] << 6;
          out.setUint32(at + 32 * half + 4 * j, word, true);
        }
      }
    },
  },
  q2_0: quarterBytes(64),
  pq2_0: quarterBytes(128),
};

/** Codes of four bytes side by side, the most significant of each from word i on, the next `stride` words behind. */
function fiveTrits(codes: Uint32Array, i: number, stride: number): number {
  return 81 * codes[i] + 27 * codes[i + stride] + 9 * codes[i + 2 * stride] +
    3 * codes[i + 3 * stride] + codes[i + 4 * stride];
}

/** Numbers of five trits, below 243, in each byte of a word. */
function putTrits(values: number, out: DataView, at: number): void {
  for (let byte = 0; byte < 4; byte++) {
    out.setUint8(at + byte, TRIT_BYTES[values >>> 8 * byte & 0xff]);
  }
}

/** The factor, then four neighbours a byte, the first one in the lowest bits. */
function quarterBytes(weights: number): BlockFormat {
  return {
    weights,
    bytes: 2 + weights / 4,
    factorAt: 0,
    encode(codes, from, out, at) {
      for (let j = 0; j < weights / 4; j++) {
        const four = codes[from + j];
        out.setUint8(at + 2 + j, four | four >>> 6 | four >>> 12 | four >>> 18);
      }
    },
  };
}

/** Weights of a row that lie together. */
export function blockWeights(type: TernaryType): number {
  return type === "i2_s" ? 128 : BLOCKS[type].weights;
}

/** Bytes of an (n, k) matrix. k must divide into blocks. */
export function codedBytes(type: CodedType, n: number, k: number): number {
  if (type === "f16") return 2 * n * k;
  if (type === "i2_s") return n * k / 4 + I2S_TAIL_BYTES;
  return n * k / BLOCKS[type].weights * BLOCKS[type].bytes;
}

/** @throws {RangeFault} If a factor is too small or too large for the type. */
export function encodeCoded(type: CodedType, matrix: CodedMatrix): Uint8Array<ArrayBuffer> {
  if (type === "f16") return encodeHalves(matrix);
  return type === "i2_s" ? encodeI2s(matrix) : encodeBlocks(matrix, BLOCKS[type]);
}

function encodeBlocks(
  matrix: CodedMatrix,
  { weights, bytes, factorAt, encode }: BlockFormat,
): Uint8Array<ArrayBuffer> {
  const { n, k } = matrix;
  const codes = wordsOf(matrix.codes);
  const out = new DataView(new ArrayBuffer(n * k / weights * bytes));
  const half = new HalfFactors();
  const words = weights / 4;
  let at = 0;
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column += weights, at += bytes) {
      const from = (row * k + column) / 4;
      encode(codes, from, out, at);
      if (isZero(codes, from, from + words)) continue;
      out.setUint16(at + factorAt, half.bits(matrix.factorAt(row, column)), true);
    }
  }
  return new Uint8Array(out.buffer);
}

function isZero(codes: Uint32Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (codes[i] !== FOUR_ZEROS) return false;
  return true;
}

/** Bits of factors in half precision; the last one is kept, as neighbours mostly have the same. */
class HalfFactors {
  #value = 1;
  #bits = HALF_ONE;

  bits(value: number): number {
    if (value === this.#value) return this.#bits;
    this.#bits = halfBits(checkedHalf(value));
    this.#value = value;
    return this.#bits;
  }
}

/** @throws {RangeFault} Where half precision has nothing near the factor. */
export function checkedHalf(value: number): number {
  const half = Math.f16round(value);
  // Below the least normal number most factors would lose most of their digits.
  if (Number.isFinite(half) && half > 0 && (half >= 2 ** -14 || half === value)) return half;
  throw new RangeFault(
    `its factor ${value} does not fit in half precision, which all types but I2_S have: use ` +
      "--type i2_s or --to packed",
  );
}

function encodeI2s({ codes, n, k, factorAt }: CodedMatrix): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(codedBytes("i2_s", n, k));
  const words = new Uint32Array(out.buffer);
  const sources = wordsOf(codes);
  for (let from = 0, at = 0; from < sources.length; from += I2S_BYTES, at += I2S_BYTES / 4) {
    for (let j = 0; j < I2S_BYTES / 4; j++) {
      const i = from + j;
      words[at + j] = sources[i] << 6 | sources[i + 8] << 4 | sources[i + 16] << 2 |
        sources[i + 24];
    }
  }
  new DataView(out.buffer).setFloat32(n * k / 4, factorAt(0, 0), true);
  return out;
}

/** A matrix whose rows no block divides, in half precision, as llama.cpp's quantizer falls back. */
function encodeHalves({ codes, n, k, factorAt }: CodedMatrix): Uint8Array<ArrayBuffer> {
  const out = new Uint16Array(n * k);
  const half = new HalfFactors();
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      const code = codes[row * k + column];
      if (code === 1) continue;
      const bits = half.bits(factorAt(row, column));
      out[row * k + column] = code === 0 ? bits | HALF_SIGN : bits;
    }
  }
  return new Uint8Array(out.buffer);
}
