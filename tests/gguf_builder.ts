/** Writes GGUF files, sound and unsound, for tests of their reader. */

/** Numbers of the types of values. */
export const VALUE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** A value with its type; that of a list is the type of its elements. */
export type TestValue =
  | readonly ["string", string | readonly string[]]
  | readonly ["bool", boolean | readonly boolean[]]
  | readonly [Exclude<keyof typeof VALUE, "string" | "bool" | "array">, number | readonly number[]];

export interface TestTensor {
  /** Innermost first. */
  dims: readonly number[];
  type: number;
  bytes: Uint8Array;
  /** Where the data is; by default behind the tensor before. */
  offset?: number;
}

export interface TestFile {
  version?: number;
  values?: Readonly<Record<string, TestValue>>;
  tensors?: Readonly<Record<string, TestTensor>>;
  alignment?: number;
}

/** Bytes that are written one after the other. */
export class GgufWriter {
  readonly #parts: Uint8Array[] = [];
  size = 0;

  bytes(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.size += bytes.length;
    return this;
  }

  u32(value: number): this {
    return this.#number(4, (view) => view.setUint32(0, value, true));
  }

  u64(value: number | bigint): this {
    return this.#number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  string(text: string): this {
    const bytes = new TextEncoder().encode(text);
    return this.u64(bytes.length).bytes(bytes);
  }

  value([type, value]: TestValue): this {
    if (typeof value !== "object") return this.u32(VALUE[type]).#scalar(type, value);
    this.u32(VALUE.array).u32(VALUE[type]).u64(value.length);
    for (const each of value) this.#scalar(type, each);
    return this;
  }

  zerosTo(alignment: number): this {
    return this.bytes(new Uint8Array(Math.ceil(this.size / alignment) * alignment - this.size));
  }

  done(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.size);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  #scalar(type: TestValue[0], value: string | number | boolean): this {
    if (type === "string") return this.string(String(value));
    const number = Number(value);
    switch (type) {
      case "u8":
      case "i8":
      case "bool":
        return this.#number(1, (view) => view.setInt8(0, number));
      case "u16":
      case "i16":
        return this.#number(2, (view) => view.setInt16(0, number, true));
      case "u32":
      case "i32":
        return this.#number(4, (view) => view.setInt32(0, number, true));
      case "f32":
        return this.#number(4, (view) => view.setFloat32(0, number, true));
      case "u64":
      case "i64":
        return this.#number(8, (view) => view.setBigInt64(0, BigInt(number), true));
      case "f64":
        return this.#number(8, (view) => view.setFloat64(0, number, true));
    }
  }

  #number(bytes: number, write: (view: DataView) => void): this {
    const buffer = new Uint8Array(bytes);
    write(new DataView(buffer.buffer));
    return this.bytes(buffer);
  }
}

/** A file with these values and tensors. */
export function ggufFile(
  { version = 3, values = {}, tensors = {}, alignment = 32 }: TestFile,
): Uint8Array<ArrayBuffer> {
  const writer = new GgufWriter().u32(0x46554747).u32(version)
    .u64(Object.keys(tensors).length).u64(Object.keys(values).length);
  for (const [key, value] of Object.entries(values)) writer.string(key).value(value);
  let end = 0;
  const places = Object.values(tensors).map(({ bytes, offset = end }) => {
    end = Math.ceil((offset + bytes.length) / alignment) * alignment;
    return offset;
  });
  for (const [i, [name, { dims, type }]] of Object.entries(tensors).entries()) {
    writer.string(name).u32(dims.length);
    for (const dim of dims) writer.u64(dim);
    writer.u32(type).u64(places[i]);
  }
  writer.zerosTo(alignment);
  for (const { bytes } of Object.values(tensors)) writer.bytes(bytes).zerosTo(alignment);
  return writer.done();
}

/** F32 bytes. */
export function f32Bytes(values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Float32Array.from(values).buffer);
}
