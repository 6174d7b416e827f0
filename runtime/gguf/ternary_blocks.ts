/**
 * Codes and factors of GGUF's ternary types: the reference of the block kinds of `kernels/zig/pack.zig`.
 * Code 0, 1, 2 is weight -1, 0, +1 times the factor of its block; code 3 is none,
 * but where a factor is 0 all weights of its block are 0, whatever their codes.
 *
 *     I2_S     128 weights: weight i is in byte i % 32 at bits 6 - 2 * (i / 32). One float32 factor
 *              stands behind the matrix.
 *     TQ2_0    256: 64 bytes of two halves, in each weight i in byte i % 32 at bits 2 * (i / 32); factor
 *     Q2_0     64: factor; weight i is in byte i / 4 at bits 2 * (i % 4)
 *     PQ2_0    128: as Q2_0
 *     TQ1_0    256: trits of 32 bytes (five each), of 16 (five each), of 4 (four each); factor
 *     Q2_0_BF16 64: as Q2_0, with the factor in bfloat16; see `runtime/mlx/matrix.ts`
 *     PTQ1_0   128: trits of 16 bytes (five each), of 8 (five each), of 2 (four each); factor
 *
 * Weight i of a part of w bytes is trit i / w of byte i % w, the first trit being the most significant;
 * a byte is ceil(v * 256 / 243) of its five trits v in base 3. Other factors are in half precision.
 *
 * Sources: the gguf package's quants.py; microsoft/BitNet's ggml-bitnet-mad.cpp; PrismML's
 * ggml-quants.c.
 */
import { ZERO_CODE } from "../../codegen/layouts/layout.ts";
import type { FloatType } from "../../codegen/model_spec.ts";
import { type BlockKind, STORED_BLOCKS, type StoredMatrix } from "../../codegen/pack/stored.ts";
import { CheckpointError, shown } from "../errors.ts";
import { valuesOf } from "../float_formats.ts";
import type { Dtype } from "./ggml_types.ts";

/** How types are called in packing. */
const KINDS: Partial<Record<Dtype, BlockKind>> = {
  I2_S: "i2s",
  TQ1_0: "tq1",
  TQ2_0: "tq2",
  Q2_0: "q2",
  PQ2_0: "pq2",
  PTQ1_0: "ptq1",
  Q2_0_BF16: "q2b",
};

/** The kind of a ternary type, or null for other types. */
export function blockKindOf(dtype: Dtype): BlockKind | null {
  return KINDS[dtype] ?? null;
}

/** A block, in the order in which types have their parts. */
interface Codec {
  /** Where the factor is in a block; null for I2_S, whose factor is behind the matrix. */
  factorAt: number | null;
  /** Puts the codes of the block that begins at `at` from `codes[first]` on. */
  decode(bytes: Uint8Array, at: number, codes: Uint8Array, first: number): void;
}

const CODECS: Readonly<Record<BlockKind, Codec>> = {
  i2s: { factorAt: null, decode: fourParts([6, 4, 2, 0], 1) },
  tq2: { factorAt: 64, decode: fourParts([0, 2, 4, 6], 2) },
  q2: { factorAt: 0, decode: neighbours(16) },
  q2b: { factorAt: 0, decode: neighbours(16) },
  pq2: { factorAt: 0, decode: neighbours(32) },
  tq1: { factorAt: 52, decode: trits([[32, 5], [16, 5], [4, 4]]) },
  ptq1: { factorAt: 26, decode: trits([[16, 5], [8, 5], [2, 4]]) },
};

/** 32 bytes hold four runs of 32 weights, at these bits; then 32 more. */
function fourParts(shifts: readonly number[], times: number): Codec["decode"] {
  return (bytes, at, codes, first) => {
    for (let half = 0; half < times; half++) {
      for (const [run, shift] of shifts.entries()) {
        const out = first + 128 * half + 32 * run;
        for (let i = 0; i < 32; i++) codes[out + i] = bytes[at + 32 * half + i] >> shift & 3;
      }
    }
  };
}

/** Behind the factor each byte holds four neighbours. */
function neighbours(count: number): Codec["decode"] {
  return (bytes, at, codes, first) => {
    for (let i = 0; i < count; i++) {
      const byte = bytes[at + 2 + i];
      for (let j = 0; j < 4; j++) codes[first + 4 * i + j] = byte >> 2 * j & 3;
    }
  };
}

/** Parts of some bytes that hold so many runs of trits. */
function trits(parts: readonly (readonly [width: number, runs: number])[]): Codec["decode"] {
  return (bytes, at, codes, first) => {
    let [from, out] = [at, first];
    for (const [width, runs] of parts) {
      for (let run = 0; run < runs; run++, out += width) {
        const power = 3 ** run;
        for (let i = 0; i < width; i++) codes[out + i] = (bytes[from + i] * power & 255) * 3 >> 8;
      }
      from += width;
    }
  };
}

/** Where the factor is in a block; null for I2_S. */
export function factorPlace(kind: BlockKind): number | null {
  return CODECS[kind].factorAt;
}

/** The type of a kind's factors. */
export function blockFactorType(kind: BlockKind): FloatType {
  if (kind === "i2s") return "f32";
  return kind === "q2b" ? "bf16" : "f16";
}

/** Codes (n, k) of a matrix, code 3 among them where the file has it: see `block_words.ts` for speed. */
export function blockCodes({ bytes, kind, n, k }: StoredMatrix): Uint8Array<ArrayBuffer> {
  const { weights, bytes: blockBytes } = STORED_BLOCKS[kind as BlockKind];
  const { factorAt, decode } = CODECS[kind as BlockKind];
  const codes = new Uint8Array(n * k);
  for (let block = 0; block < n * k / weights; block++) {
    const [at, first] = [block * blockBytes, block * weights];
    const isZero = factorAt !== null && (halfAt(bytes, at + factorAt) & 0x7fff) === 0;
    if (isZero) codes.fill(ZERO_CODE, first, first + weights);
    else decode(bytes, at, codes, first);
  }
  return codes;
}

/** Both bits of a code, of the eight codes of two bytes. */
const LOW_BITS = 0x5555;

/**
 * Whether a block has code 3 and a factor that is not 0. Trits have no such code.
 *
 * @param bytes Whole blocks, from an even place of their buffer on; not I2_S.
 */
export function hasFourthCode(bytes: Uint8Array, kind: BlockKind): boolean {
  const { factorAt } = CODECS[kind];
  if (factorAt === null || kind === "tq1" || kind === "ptq1") return false;
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const perBlock = STORED_BLOCKS[kind].bytes / 2;
  // The factor is a block's first word or its last.
  const [from, to] = factorAt === 0 ? [1, perBlock] : [0, perBlock - 1];
  for (let block = 0; block < words.length; block += perBlock) {
    let found = 0;
    for (let i = block + from; i < block + to; i++) found |= words[i] & words[i] >> 1;
    if ((found & LOW_BITS) !== 0 && (words[block + factorAt / 2] & 0x7fff) !== 0) return true;
  }
  return false;
}

/**
 * Factors of the blocks of a matrix, in order: one for the whole of I2_S.
 *
 * @param bytes As the checkpoint has them, that of I2_S included.
 * @throws {CheckpointError} If one is negative or not finite.
 */
export function blockFactors(
  bytes: Uint8Array,
  kind: BlockKind,
  weights: number,
  what: string,
): Float32Array {
  const { factorAt } = CODECS[kind];
  const found = factorAt === null
    ? Float32Array.of(new DataView(bytes.buffer, bytes.byteOffset).getFloat32(weights / 4, true))
    : halves(bytes, factorAt, kind, weights);
  const bad = found.findIndex((factor) => !(factor >= 0 && factor < Infinity));
  if (bad < 0) return found;
  throw new CheckpointError(
    `Cannot use ${what}: factors of weights must be finite and not negative: factor ${bad} is ` +
      `${shown(found[bad])}, the file is damaged`,
  );
}

function halves(
  bytes: Uint8Array,
  factorAt: number,
  kind: BlockKind,
  weights: number,
): Float32Array {
  const block = STORED_BLOCKS[kind];
  const values = valuesOf(blockFactorType(kind) as "f16" | "bf16");
  const factors = new Float32Array(weights / block.weights);
  for (let i = 0; i < factors.length; i++) {
    factors[i] = values[halfAt(bytes, i * block.bytes + factorAt)];
  }
  return factors;
}

function halfAt(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}
