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

/** What a place of a header holds: a number, a text with its length before it, or several fields. */
export type FieldKind =
  | Exclude<keyof typeof VALUE, "string" | "array">
  | "text"
  | "valueType"
  | "tensorType"
  | "value"
  | "key"
  | "tensor";

/** A field of a header, and where it is. */
export interface GgufField {
  what: string;
  kind: FieldKind;
  at: number;
  bytes: number;
}

/** A file in parts: its data begins at the next multiple of the alignment behind its header. */
export interface GgufParts {
  header: Uint8Array<ArrayBuffer>;
  fields: GgufField[];
  data: Uint8Array<ArrayBuffer>;
  alignment: number;
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
  readonly fields: GgufField[] = [];
  size = 0;

  /** Keeps the place of what `write` writes. */
  field(what: string, kind: FieldKind, write: () => void): this {
    const at = this.size;
    write();
    this.fields.push({ what, kind, at, bytes: this.size - at });
    return this;
  }

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

  string(text: string, what = "text"): this {
    const bytes = new TextEncoder().encode(text);
    return this.field(what, "text", () => {
      this.field(`length of ${what}`, "u64", () => this.u64(bytes.length)).bytes(bytes);
    });
  }

  value([type, value]: TestValue, what = "value"): this {
    const isList = typeof value === "object";
    this.field(`type of ${what}`, "valueType", () => this.u32(VALUE[isList ? "array" : type]));
    if (!isList) return this.#scalar(type, value, what);
    this.field(`type of ${what}'s elements`, "valueType", () => this.u32(VALUE[type]));
    this.field(`length of ${what}`, "u64", () => this.u64(value.length));
    for (const [i, each] of value.entries()) this.#scalar(type, each, `${what}[${i}]`);
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

  #scalar(type: TestValue[0], value: string | number | boolean, what: string): this {
    if (type === "string") return this.string(String(value), what);
    return this.field(what, type, () => this.#plain(type, Number(value)));
  }

  #plain(type: Exclude<TestValue[0], "string">, number: number): this {
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

/** A file with these values and tensors, in parts. */
export function ggufParts(
  { version = 3, values = {}, tensors = {}, alignment = 32 }: TestFile,
): GgufParts {
  const writer = new GgufWriter();
  const counts = { tensors: Object.keys(tensors).length, keys: Object.keys(values).length };
  writer.field("magic", "u32", () => writer.u32(0x46554747))
    .field("version", "u32", () => writer.u32(version));
  for (const [name, count] of Object.entries(counts)) {
    writer.field(`number of ${name}`, "u64", () => writer.u64(count));
  }
  for (const [key, value] of Object.entries(values)) writeKey(writer, key, value);
  const data = new GgufWriter();
  let end = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const { bytes, offset = end } = tensor;
    end = Math.ceil((offset + bytes.length) / alignment) * alignment;
    writeTensor(writer, name, tensor, offset);
    data.bytes(bytes).zerosTo(alignment);
  }
  return { header: writer.done(), fields: writer.fields, data: data.done(), alignment };
}

function writeKey(writer: GgufWriter, key: string, value: TestValue): void {
  writer.field(key, "key", () => {
    writer.string(key, `key ${key}`);
    writer.field(key, "value", () => writer.value(value, key));
  });
}

function writeTensor(
  writer: GgufWriter,
  name: string,
  { dims, type }: TestTensor,
  offset: number,
): void {
  writer.field(name, "tensor", () => {
    writer.string(name, `name ${name}`);
    writer.field(`dimensions of ${name}`, "u32", () => writer.u32(dims.length));
    for (const [i, dim] of dims.entries()) {
      writer.field(`dimension ${i} of ${name}`, "u64", () => writer.u64(dim));
    }
    writer.field(`type of ${name}`, "tensorType", () => writer.u32(type))
      .field(`offset of ${name}`, "u64", () => writer.u64(offset));
  });
}

/** The parts as a file. */
export function joinedParts({ header, data, alignment }: GgufParts): Uint8Array<ArrayBuffer> {
  return new GgufWriter().bytes(header).zerosTo(alignment).bytes(data).done();
}

/** A file with these values and tensors. */
export function ggufFile(file: TestFile): Uint8Array<ArrayBuffer> {
  return joinedParts(ggufParts(file));
}

/** F32 bytes. */
export function f32Bytes(values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Float32Array.from(values).buffer);
}
