/**
 * Codes of GGUF's ternary types, four weights at a time: what `blockCodes` of `ternary_blocks.ts` defines,
 * with the same results.
 */
import { type BlockKind, STORED_BLOCKS, type StoredMatrix } from "../../codegen/pack/stored.ts";
import { CODE_BITS, FOUR_ZEROS } from "../code_words.ts";
import { factorPlace } from "./ternary_blocks.ts";

/** Puts the codes of the block at `at` into `codes` from word `to` on. */
type Decode = (block: DataView, at: number, codes: Uint32Array, to: number) => void;

/** The codes of a byte, the lowest bits in the first one. */
const NEIGHBOURS = Uint32Array.from(
  { length: 256 },
  (_, byte) => byte & 3 | (byte & 12) << 6 | (byte & 48) << 12 | (byte & 192) << 18,
);

function neighbours(bytes: number): Decode {
  return (block, at, codes, to) => {
    for (let j = 0; j < bytes; j++) codes[to + j] = NEIGHBOURS[block.getUint8(at + 2 + j)];
  };
}

/** The codes of two lanes of 16 bits. */
const LANE_CODES = 0x00030003;

/**
 * Trits of `width` bytes from byte `from` on, `count` of each. A byte is a fraction of 256, whose digits
 * in base 3 come out in front when it is multiplied by 3, in lanes of 16 bits here.
 */
function trits(
  block: DataView,
  from: number,
  { width, count }: { width: number; count: number },
  codes: Uint32Array,
  to: number,
): void {
  for (let j = 0; j < width / 4; j++) {
    const word = block.getUint32(from + 4 * j, true);
    let even = word & 0x00ff00ff;
    let odd = word >>> 8 & 0x00ff00ff;
    for (let trit = 0; trit < count; trit++) {
      even *= 3;
      odd *= 3;
      codes[to + trit * width / 4 + j] = even >>> 8 & LANE_CODES | odd & LANE_CODES << 8;
      even &= 0x00ff00ff;
      odd &= 0x00ff00ff;
    }
  }
}

/** PTQ1_0's last two bytes, whose trits alternate. */
function tritPairs(block: DataView, from: number, codes: Uint32Array, to: number): void {
  let pair = block.getUint8(from) | block.getUint8(from + 1) << 16;
  for (let word = 0; word < 2; word++) {
    const first = pair * 3;
    const second = (first & 0x00ff00ff) * 3;
    pair = second & 0x00ff00ff;
    codes[to + word] = first >>> 8 & 3 | first >>> 16 & 0x300 | second << 8 & 0x30000 |
      second & 0x3000000;
  }
}

const DECODES: Readonly<Record<BlockKind, Decode>> = {
  i2s(block, at, codes, to) {
    for (let j = 0; j < 8; j++) {
      const word = block.getUint32(at + 4 * j, true);
      for (let group = 0; group < 4; group++) {
        codes[to + 8 * group + j] = word >>> 6 - 2 * group & CODE_BITS;
      }
    }
  },
  tq2(block, at, codes, to) {
    for (let j = 0; j < 16; j++) {
      const word = block.getUint32(at + 4 * j, true);
      // Two halves of eight words.
      const first = to + 32 * (j >> 3) + j % 8;
      for (let group = 0; group < 4; group++) {
        codes[first + 8 * group] = word >>> 2 * group & CODE_BITS;
      }
    }
  },
  q2: neighbours(16),
  q2b: neighbours(16),
  pq2: neighbours(32),
  tq1(block, at, codes, to) {
    trits(block, at, { width: 32, count: 5 }, codes, to);
    trits(block, at + 32, { width: 16, count: 5 }, codes, to + 40);
    trits(block, at + 48, { width: 4, count: 4 }, codes, to + 60);
  },
  ptq1(block, at, codes, to) {
    trits(block, at, { width: 16, count: 5 }, codes, to);
    trits(block, at + 16, { width: 8, count: 5 }, codes, to + 20);
    tritPairs(block, at + 24, codes, to + 30);
  },
};

/** Codes (n, k) of a matrix, code 3 among them where the file has it. */
export function blockCodes({ bytes, kind, n, k }: StoredMatrix): Uint8Array<ArrayBuffer> {
  const { weights, bytes: blockBytes } = STORED_BLOCKS[kind as BlockKind];
  const decode = DECODES[kind as BlockKind];
  const factorAt = factorPlace(kind as BlockKind);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const codes = new Uint32Array(n * k / 4);
  const perBlock = weights / 4;
  for (let to = 0, at = 0; to < codes.length; to += perBlock, at += blockBytes) {
    decode(view, at, codes, to);
    if (factorAt === null || (view.getUint16(at + factorAt, true) & 0x7fff) !== 0) continue;
    codes.fill(FOUR_ZEROS, to, to + perBlock);
  }
  return new Uint8Array(codes.buffer);
}
