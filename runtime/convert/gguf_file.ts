/**
 * The container of GGUF files, version 3, little-endian: a header with keys and a table of tensors,
 * then their data, each at a multiple of 32 bytes.
 *
 * Source: ggml's docs/gguf.md.
 */

import { free } from "../free.ts";

/** Numbers of the types of values that are written. */
export const VALUE_TYPES = {
  uint16: 2,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
} as const;
export type ValueType = Exclude<keyof typeof VALUE_TYPES, "array">;

type Scalar = string | number | boolean;
/** The type is that of the items where the value is a list. */
export type GgufValue = readonly [
  key: string,
  type: ValueType,
  value: Scalar | readonly Scalar[],
];

/** Numbers of the types of tensors that are written. */
export const TENSOR_TYPES = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q6_K: 14,
  BF16: 30,
  TQ1_0: 34,
  TQ2_0: 35,
  /** microsoft/BitNet's. */
  I2_S: 36,
  Q2_0: 42,
  /** PrismML's. */
  PQ2_0: 142,
} as const;
export type TensorType = keyof typeof TENSOR_TYPES;

/** A tensor to write. */
export interface GgufTensor {
  name: string;
  /** Innermost first, as GGUF has them. */
  dims: readonly number[];
  type: TensorType;
  bytes: number;
}

/** A tensor with its place, from the start of the data. */
export type PlacedTensor<T extends GgufTensor = GgufTensor> = T & { offset: number };

export const ALIGNMENT = 32;
const MAGIC = 0x46554747;
const VERSION = 3;

export function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** The tensors one after the other. */
export function placeTensors<T extends GgufTensor>(tensors: readonly T[]): PlacedTensor<T>[] {
  let end = 0;
  return tensors.map((tensor) => {
    const offset = aligned(end);
    end = offset + tensor.bytes;
    return { ...tensor, offset };
  });
}

/** All that stands before the data, which begins where these bytes end. */
export function encodeGgufHeader(
  values: readonly GgufValue[],
  tensors: readonly PlacedTensor[],
): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter();
  writer.u32(MAGIC).u32(VERSION).u64(tensors.length).u64(values.length);
  for (const [key, type, value] of values) {
    writer.string(key);
    if (typeof value !== "object") {
      writer.u32(VALUE_TYPES[type]).value(type, value);
      continue;
    }
    writer.u32(VALUE_TYPES.array).u32(VALUE_TYPES[type]).u64(value.length);
    for (const item of value) writer.value(type, item);
  }
  for (const { name, dims, type, offset } of tensors) {
    writer.string(name).u32(dims.length);
    for (const dim of dims) writer.u64(dim);
    writer.u32(TENSOR_TYPES[type]).u64(offset);
  }
  return writer.padded(ALIGNMENT);
}

/** UTF-8 bytes that an element of a JavaScript string becomes at most. */
const MOST_UTF8_BYTES = 3;

/** Little-endian bytes, one after the other. */
class ByteWriter {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  #end = 0;
  readonly #encoder = new TextEncoder();

  u32(value: number): this {
    return this.#number(4, (view, at) => view.setUint32(at, value, true));
  }

  u64(value: number): this {
    return this.#number(8, (view, at) => view.setBigUint64(at, BigInt(value), true));
  }

  /** In place, as there are hundreds of thousands of them. */
  string(text: string): this {
    const at = this.#end;
    const start = this.u64(0).#take(MOST_UTF8_BYTES * text.length);
    const { written } = this.#encoder.encodeInto(text, this.#bytes.subarray(start));
    this.#view.setUint32(at, written, true);
    this.#end = start + written;
    return this;
  }

  value(type: ValueType, value: Scalar): this {
    switch (type) {
      case "string":
        return this.string(String(value));
      case "float32":
        return this.#number(4, (view, at) => view.setFloat32(at, Number(value), true));
      case "uint16":
        return this.#number(2, (view, at) => view.setUint16(at, Number(value), true));
      case "bool":
        return this.#number(1, (view, at) => view.setUint8(at, Number(value)));
      case "int32":
      case "uint32":
        return this.u32(Number(value));
    }
  }

  /** All of it, filled with zeros to a multiple of `alignment`. */
  padded(alignment: number): Uint8Array<ArrayBuffer> {
    const at = this.#end;
    const padding = Math.ceil(at / alignment) * alignment - at;
    this.#take(padding);
    this.#bytes.fill(0, at, this.#end);
    const bytes = this.#bytes.slice(0, this.#end);
    free(this.#bytes);
    return bytes;
  }

  #number(bytes: number, set: (view: DataView, at: number) => void): this {
    const at = this.#take(bytes);
    set(this.#view, at);
    return this;
  }

  /** Room for so many bytes. @returns Where it begins. */
  #take(bytes: number): number {
    const at = this.#end;
    this.#end += bytes;
    if (this.#end > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#end);
      larger.set(this.#bytes);
      free(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}
