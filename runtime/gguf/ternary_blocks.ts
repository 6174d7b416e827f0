/**
 * Codes and factors of GGUF's ternary types, a weight at a time: the reference of the block kinds of
 * `kernels/zig/pack.zig`. Code 0, 1, 2 is weight -1, 0, +1 times the factor of its block; code 3 is none,
 * but where a factor is 0 all weights of its block are 0, whatever their codes.
 *
 *     I2_S     128 weights: weight i is in byte i % 32 at bits 6 - 2 * (i / 32). One float32 factor
 *              stands behind the matrix.
 *     TQ2_0    256: 64 bytes of two halves, in each weight i in byte i % 32 at bits 2 * (i / 32); factor
 *     Q2_0     64: factor; weight i is in byte i / 4 at bits 2 * (i % 4)
 *     PQ2_0    128: as Q2_0
 *     TQ1_0    256: trits of 32 bytes (five each), of 16 (five each), of 4 (four each); factor
 *     PTQ1_0   128: trits of 16 bytes (five each), of 8 (five each), of 2 (four each); factor
 *
 * Weight i of a part of w bytes is trit i / w of byte i % w, the first trit being the most significant;
 * a byte is ceil(v * 256 / 243) of its five trits v in base 3. Factors are in half precision.
 *
 * Sources: the gguf package's quants.py; microsoft/BitNet's ggml-bitnet-mad.cpp; PrismML's
 * ggml-quants.c.
 */
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
};

/** The kind of a ternary type, or null for other types. */
export function blockKindOf(dtype: Dtype): BlockKind | null {
  return KINDS[dtype] ?? null;
}

/** A block, in the order in which types have their parts. */
interface Codec {
  /** Where the factor is in a block; null for I2_S, whose factor is behind the matrix. */
  factorAt: number | null;
  /** The code of weight i of the block that begins at `at`. */
  code(bytes: Uint8Array, at: number, i: number): number;
}

const CODECS: Readonly<Record<BlockKind, Codec>> = {
  i2s: {
    factorAt: null,
    code: (bytes, at, i) => bytes[at + i % 32] >> (6 - 2 * (i >> 5)) & 3,
  },
  tq2: {
    factorAt: 64,
    code: (bytes, at, i) => bytes[at + 32 * (i >> 7) + i % 32] >> (2 * (i >> 5 & 3)) & 3,
  },
  q2: { factorAt: 0, code: quarterByte },
  pq2: { factorAt: 0, code: quarterByte },
  tq1: { factorAt: 52, code: tritCode([[160, 32, 0], [240, 16, 32], [256, 4, 48]]) },
  ptq1: { factorAt: 26, code: tritCode([[80, 16, 0], [120, 8, 16], [128, 2, 24]]) },
};

function quarterByte(bytes: Uint8Array, at: number, i: number): number {
  return bytes[at + 2 + (i >> 2)] >> (2 * (i & 3)) & 3;
}

/** Parts of a block: their end in weights, their bytes, and where these begin. */
function tritCode(parts: readonly (readonly [end: number, width: number, from: number])[]) {
  return (bytes: Uint8Array, at: number, i: number): number => {
    const part = parts.findIndex(([end]) => i < end);
    const [, width, from] = parts[part];
    const inPart = i - (parts[part - 1]?.[0] ?? 0);
    const byte = bytes[at + from + inPart % width];
    return (byte * 3 ** Math.floor(inPart / width) & 255) * 3 >> 8;
  };
}

/** Codes (n, k) of a matrix, code 3 among them where the file has it. */
export function blockCodes({ bytes, kind, n, k }: StoredMatrix): Uint8Array<ArrayBuffer> {
  const { weights, bytes: blockBytes } = STORED_BLOCKS[kind as BlockKind];
  const { factorAt, code } = CODECS[kind as BlockKind];
  const codes = new Uint8Array(n * k);
  for (let block = 0; block < n * k / weights; block++) {
    const at = block * blockBytes;
    const isZero = factorAt !== null && (halfAt(bytes, at + factorAt) & 0x7fff) === 0;
    for (let i = 0; i < weights; i++) {
      codes[block * weights + i] = isZero ? 1 : code(bytes, at, i);
    }
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
    : halves(bytes, factorAt, STORED_BLOCKS[kind], weights);
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
  block: { weights: number; bytes: number },
  weights: number,
): Float32Array {
  const values = valuesOf("f16");
  const factors = new Float32Array(weights / block.weights);
  for (let i = 0; i < factors.length; i++) {
    factors[i] = values[halfAt(bytes, i * block.bytes + factorAt)];
  }
  return factors;
}

function halfAt(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}
