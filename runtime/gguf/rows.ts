/**
 * Reads a GGUF tensor as if it had been written in Hugging Face's order of rows and, if it is I2_S,
 * in the layout of x86: other layouts and orders are undone here, so that nobody else knows them.
 *
 * I2_S has three layouts under one number (microsoft/BitNet's ggml-bitnet-mad.cpp), all of four codes
 * a byte:
 *
 *     x86    byte p of 32 holds weights p, 32 + p, 64 + p, 96 + p of 128, the first in the top bits
 *     arm    byte p of 16 holds weights p, 16 + p, 32 + p, 48 + p of 64, the first in the top bits
 *     rows4  a byte holds the weights of four rows at one column, the first row in the top bits
 *
 * Rows of query and key heads of architectures that turn neighbouring features lie in pairs: row
 * 2i + h of a head is Hugging Face's row i + h * headDim / 2.
 */
import { CheckpointError, shown } from "../errors.ts";
import { checkRange, type TensorInfo } from "../tensors.ts";
import type { Allocate } from "../weights.ts";
import type { ByteSource } from "../byte_source.ts";
import type { I2sLayout } from "./checkpoint.ts";

export interface RowOrder {
  /** Names the tensor in errors. */
  name: string;
  /** Null where rows lie in order. */
  turn: { heads: number; headDim: number } | null;
  i2sLayout: I2sLayout;
}

/** Rows of `rows4` that share bytes. */
const SHARED_ROWS = 4;
const X86_BLOCK = 128;

export class RowReader {
  readonly info: TensorInfo;
  readonly #source: ByteSource;
  readonly #order: RowOrder;
  readonly #rows: number;
  readonly #rowBytes: number;

  /** @throws {CheckpointError} If the shape is none whose rows can be put in order. */
  constructor(source: ByteSource, info: TensorInfo, order: RowOrder) {
    this.#source = source;
    this.info = info;
    const isI2s = info.dtype === "I2_S";
    this.#order = { ...order, i2sLayout: isI2s ? order.i2sLayout : "x86" };
    // A bias has one element a row.
    const columns = info.shape.length === 1 ? 1 : info.shape.at(-1)!;
    const weights = info.shape.reduce((product, size) => product * size, 1);
    this.#rows = weights / columns;
    this.#rowBytes = isI2s ? columns / SHARED_ROWS : info.byteLength / this.#rows;
    this.#check(columns, isI2s);
  }

  /** `length` bytes from byte `start` of the tensor. @throws {RangeError} If it has not so many. */
  async read(start: number, length: number, allocate: Allocate = fresh) {
    checkRange(this.#order.name, this.info, start, length);
    if (this.#order.turn === null && this.#order.i2sLayout === "x86") {
      return await this.#source.read(this.info.byteOffset + start, length, allocate);
    }
    return await this.#readOrdered(start, length, allocate);
  }

  /** Reads all rows that the range touches, and what stands after them. */
  async #readOrdered(start: number, length: number, allocate: Allocate) {
    const rowBytes = this.#rowBytes;
    const rowsEnd = this.#rows * rowBytes;
    const out = allocate(length);
    const first = Math.min(Math.floor(start / rowBytes), this.#rows);
    const last = Math.min(Math.ceil((start + length) / rowBytes), this.#rows);
    if (first < last) {
      const rows = await this.#orderedRows(first, last - first);
      const from = start - first * rowBytes;
      out.set(rows.subarray(from, Math.min(from + length, rows.length)));
    }
    if (start + length > rowsEnd) {
      const from = Math.max(start, rowsEnd);
      const { byteOffset } = this.info;
      const rest = await this.#source.read(byteOffset + from, start + length - from);
      out.set(rest, from - start);
    }
    return out;
  }

  /** Rows first .. first + count in Hugging Face's order. */
  async #orderedRows(first: number, count: number): Promise<Uint8Array> {
    const { turn } = this.#order;
    if (turn === null) return await this.#plainRows(first, count);
    const { headDim } = turn;
    const start = first - first % headDim;
    const end = Math.ceil((first + count) / headDim) * headDim;
    const rows = await this.#plainRows(start, end - start);
    const ordered = unpaired(rows, headDim, this.#rowBytes);
    return ordered.subarray(
      (first - start) * this.#rowBytes,
      (first - start + count) * this.#rowBytes,
    );
  }

  /** Rows in the file's order, I2_S in the layout of x86. */
  async #plainRows(first: number, count: number): Promise<Uint8Array> {
    const { i2sLayout } = this.#order;
    const step = i2sLayout === "rows4" ? SHARED_ROWS : 1;
    const start = first - first % step;
    const end = Math.min(Math.ceil((first + count) / step) * step, this.#rows);
    const bytes = await this.#source.read(
      this.info.byteOffset + start * this.#rowBytes,
      (end - start) * this.#rowBytes,
    );
    if (i2sLayout === "x86") return bytes;
    const rows = i2sLayout === "arm" ? fromArm(bytes) : fromRows4(bytes, this.#rowBytes);
    return rows.subarray(
      (first - start) * this.#rowBytes,
      (first - start + count) * this.#rowBytes,
    );
  }

  #check(columns: number, isI2s: boolean): void {
    const { name, turn, i2sLayout } = this.#order;
    const fail = (rule: string, value: number): never => {
      throw new CheckpointError(`Cannot read ${shown(name)}: ${rule}: current value is ${value}`);
    };
    if (isI2s && columns % X86_BLOCK !== 0) {
      fail(`rows of I2_S must be of a multiple of ${X86_BLOCK} weights`, columns);
    }
    if (i2sLayout === "rows4" && this.#rows % SHARED_ROWS !== 0) {
      fail("I2_S in the layout rows4 must have a multiple of 4 rows", this.#rows);
    }
    if (turn !== null && this.#rows !== turn.heads * turn.headDim) {
      fail(`${turn.heads} heads must have ${turn.headDim} rows each`, this.#rows);
    }
  }
}

const fresh: Allocate = (bytes) => new Uint8Array(bytes);

/** Rows of heads out of pairs: 2i to i, 2i + 1 to i + headDim / 2. */
function unpaired(rows: Uint8Array, headDim: number, rowBytes: number): Uint8Array {
  const out = new Uint8Array(rows.length);
  const half = headDim / 2;
  for (let row = 0; row * rowBytes < rows.length; row++) {
    const head = row - row % headDim;
    const inHead = row - head;
    const target = head + (inHead >> 1) + (inHead & 1) * half;
    out.set(rows.subarray(row * rowBytes, (row + 1) * rowBytes), target * rowBytes);
  }
  return out;
}

/** Two blocks of 64 weights become one of 128: weights 0..63 are in the first. */
function fromArm(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let block = 0; block < bytes.length; block += 32) {
    for (let p = 0; p < 32; p++) {
      let byte = 0;
      for (let group = 0; group < 4; group++) {
        byte = byte << 2 | armCode(bytes, block, 32 * group + p);
      }
      out[block + p] = byte;
    }
  }
  return out;
}

function armCode(bytes: Uint8Array, block: number, weight: number): number {
  const byte = bytes[block + (weight >> 6) * 16 + (weight & 15)];
  return byte >> (6 - 2 * (weight >> 4 & 3)) & 3;
}

/** @param rowBytes Of a row, a quarter of its columns. */
function fromRows4(bytes: Uint8Array, rowBytes: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let group = 0; group < bytes.length; group += 4 * rowBytes) {
    for (let column = 0; column < 4 * rowBytes; column++) {
      const codes = bytes[group + column];
      const at = (column >> 7) * 32 + (column & 31);
      const shift = 6 - 2 * (column >> 5 & 3);
      for (let row = 0; row < 4; row++) {
        out[group + row * rowBytes + at] |= (codes >> (6 - 2 * row) & 3) << shift;
      }
    }
  }
  return out;
}
