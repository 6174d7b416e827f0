/**
 * The header of a GGUF file: keys and values, then names, shapes, types and places of tensors. What
 * a file says of itself is checked against its real size before anything is allocated or read for it.
 *
 * Source: ggml's docs/gguf.md; gguf.cpp (limits, padding).
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { CheckpointError, shown, UnsupportedModelError } from "../errors.ts";
import type { TensorInfo } from "../tensors.ts";
import type { ByteSource } from "../byte_source.ts";
import { bytesOf, layoutsOf, refusalOf, type TypeLayout } from "./ggml_types.ts";
import {
  type GgufArray,
  type GgufScalar,
  type GgufValue,
  isArray,
  type Metadata,
  SCALAR_BYTES,
  type ScalarType,
  VALUE_TYPES,
  type ValueType,
} from "./values.ts";

const MAGIC = 0x46554747;
const BIG_ENDIAN_VERSIONS = [0x01000000, 0x02000000, 0x03000000];
/** Real headers have 10 MB, nearly all of them a vocabulary. */
export const MAX_HEADER_BYTES = 256 * 2 ** 20;
/** Bytes that are read at first; as often as they don't suffice, twice as many. */
const FIRST_READ_BYTES = 2 ** 18;
const MAX_KEYS = 2 ** 16;
const MAX_TENSORS = 2 ** 17;
const MAX_KEY_BYTES = 65535;
const MAX_NAME_BYTES = 1024;
const MAX_DIMENSIONS = 4;
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 2 ** 20;
/** The least that a key with its value takes (length, type, u8), and a tensor. */
const MIN_KEY_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8;

export interface GgufHeader {
  readonly version: number;
  readonly metadata: Metadata;
  /** By the file's own names, in its order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly alignment: number;
  /** SHA-256 of all bytes before the first tensor's, hexadecimal. */
  readonly sha256: string;
}

/** A tensor as the header has it, its place not yet checked. */
interface RawTensor {
  name: string;
  /** Innermost first. */
  dimensions: number[];
  typeId: number;
  /** From the start of the data. */
  offset: number;
}

interface Raw {
  version: number;
  metadata: Metadata;
  tensors: RawTensor[];
  headerBytes: number;
}

/** Thrown where the bytes that were read end before the header does. */
class MoreNeeded extends Error {}

/**
 * @throws {CheckpointError} If the file is no sound GGUF file.
 * @throws {UnsupportedModelError} If its version, byte order or a type is one that is not read.
 */
export async function readHeader(source: ByteSource): Promise<GgufHeader> {
  const what = shown(basename(source.path));
  const { raw, bytes } = await readRaw(source, what);
  const alignment = alignmentOf(raw.metadata, what);
  const dataStart = alignedUp(raw.headerBytes, alignment);
  const tensors = placedTensors(raw.tensors, { alignment, dataStart, size: source.size, what });
  const sha256 = createHash("sha256").update(bytes.subarray(0, raw.headerBytes)).digest("hex");
  return { version: raw.version, metadata: raw.metadata, tensors, alignment, sha256 };
}

/** Reads more and more of the file's beginning until the header is whole. */
async function readRaw(source: ByteSource, what: string): Promise<{ raw: Raw; bytes: Uint8Array }> {
  const most = Math.min(source.size, MAX_HEADER_BYTES);
  for (let length = Math.min(FIRST_READ_BYTES, most);; length = Math.min(2 * length, most)) {
    const bytes = await source.read(0, length);
    try {
      return { raw: new HeaderParser(bytes, source.size, what).header(), bytes };
    } catch (error) {
      if (!(error instanceof MoreNeeded)) throw error;
      if (length < most) continue;
      throw new CheckpointError(
        length < source.size
          ? `Cannot read ${what}: its header must have at most ${MAX_HEADER_BYTES} bytes`
          : `Cannot read ${what} as a GGUF file: it ends at byte ${source.size}, within its ` +
            "header: download it again",
      );
    }
  }
}

/** Strict UTF-8, a byte order mark kept. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class HeaderParser {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #fileBytes: number;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Uint8Array, fileBytes: number, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#fileBytes = fileBytes;
    this.#what = what;
  }

  header(): Raw {
    const version = this.#version();
    const tensorCount = this.#count("tensors", MAX_TENSORS, MIN_TENSOR_BYTES);
    const keyCount = this.#count("keys", MAX_KEYS, MIN_KEY_BYTES);
    const metadata = this.#metadata(keyCount);
    const tensors = this.#tensors(tensorCount);
    return { version, metadata, tensors, headerBytes: this.#at };
  }

  #version(): number {
    if (this.#u32() !== MAGIC) this.#fail('it does not begin with "GGUF"');
    const version = this.#u32();
    if (version === 2 || version === 3) return version;
    const isBigEndian = BIG_ENDIAN_VERSIONS.includes(version);
    throw new UnsupportedModelError(
      isBigEndian
        ? `Cannot read ${this.#what} as its numbers are big-endian: get the little-endian file`
        : `Cannot read ${this.#what} as versions 2 and 3 of GGUF are read: current value is ` +
          `${version}, get a newer file or convert it with llama.cpp's llama-quantize`,
    );
  }

  /** How many there are of what takes at least `leastBytes`: no more than fit in the file. */
  #count(name: string, most: number, leastBytes: number): number {
    const count = this.#u64();
    const isBelievable = typeof count === "number" && count * leastBytes <= this.#fileBytes;
    if (isBelievable && count <= most) return count;
    return this.#fail(
      `it claims ${count} ${name} and has ${this.#fileBytes} bytes, ${most} are read at most`,
    );
  }

  #metadata(count: number): Metadata {
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < count; i++) {
      const key = this.#string("a key", MAX_KEY_BYTES);
      if (metadata.has(key)) this.#fail(`it has the key ${shown(key)} twice`);
      metadata.set(key, this.#value(key));
    }
    return metadata;
  }

  #value(key: string): GgufValue {
    const type = this.#type(key);
    if (type === "array") return this.#array(key);
    if (type === "string") return this.#string(`the value of ${shown(key)}`, this.#fileBytes);
    return this.#scalar(type, key);
  }

  #type(key: string): ValueType {
    const id = this.#u32();
    return VALUE_TYPES[id] ?? this.#fail(`${shown(key)} has a value of unknown type ${id}`);
  }

  #scalar(type: ScalarType, key: string): GgufScalar {
    const at = this.#take(SCALAR_BYTES[type]);
    const value = scalarAt(this.#view, at, type);
    return value ?? this.#fail(`${shown(key)} must be 0 or 1: current value is ${this.#bytes[at]}`);
  }

  #array(key: string): GgufArray {
    const type = this.#type(key);
    // Nothing that any program writes; each level would double what a file can ask for.
    if (type === "array") return this.#fail(`${shown(key)} has lists within a list`);
    const length = this.#u64();
    const leastBytes = type === "string" ? 8 : SCALAR_BYTES[type];
    if (typeof length !== "number" || length * leastBytes > this.#fileBytes) {
      return this.#fail(
        `${shown(key)} claims ${length} elements and the file has ${this.#fileBytes} bytes`,
      );
    }
    const start = this.#at;
    if (type !== "string") this.#take(length * leastBytes);
    else for (let i = 0; i < length; i++) this.#skipString(key);
    return lazyArray(this.#bytes.subarray(start, this.#at), type, length, key, this.#what);
  }

  #skipString(key: string): void {
    const length = this.#u64();
    if (typeof length !== "number" || length > this.#fileBytes) {
      this.#fail(`a string of ${shown(key)} claims ${length} bytes`);
    }
    this.#take(length as number);
  }

  #tensors(count: number): RawTensor[] {
    const tensors: RawTensor[] = [];
    const names = new Set<string>();
    for (let i = 0; i < count; i++) {
      const tensor = this.#tensor();
      if (names.has(tensor.name)) this.#fail(`it has the tensor ${shown(tensor.name)} twice`);
      names.add(tensor.name);
      tensors.push(tensor);
    }
    return tensors;
  }

  #tensor(): RawTensor {
    const name = this.#string("a tensor's name", MAX_NAME_BYTES);
    const rank = this.#u32();
    if (rank < 1 || rank > MAX_DIMENSIONS) {
      this.#fail(`${shown(name)} must have 1 to ${MAX_DIMENSIONS} dimensions: it claims ${rank}`);
    }
    const dimensions = Array.from({ length: rank }, () => this.#dimension(name));
    const typeId = this.#u32();
    const offset = this.#u64();
    if (typeof offset === "number") return { name, dimensions, typeId, offset };
    return this.#fail(`${shown(name)} claims to begin at byte ${offset}`);
  }

  #dimension(name: string): number {
    const size = this.#u64();
    if (typeof size === "number" && size >= 1) return size;
    return this.#fail(`a dimension of ${shown(name)} must be at least 1: it claims ${size}`);
  }

  #string(name: string, most: number): string {
    const length = this.#u64();
    if (typeof length !== "number" || length > Math.min(most, this.#fileBytes)) {
      return this.#fail(`${name} claims ${length} bytes`);
    }
    const at = this.#take(length);
    return utf8(this.#bytes.subarray(at, at + length), name, this.#what);
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  #u64(): number | bigint {
    return narrowed(this.#view.getBigUint64(this.#take(8), true));
  }

  /** Where the next `length` bytes begin. @throws {MoreNeeded} If they were not read. */
  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw new MoreNeeded();
    this.#at += length;
    return at;
  }

  #fail(reason: string): never {
    throw new CheckpointError(
      `Cannot read ${this.#what} as a GGUF file: ${reason}: download it again`,
    );
  }
}

function narrowed(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function utf8(bytes: Uint8Array, name: string, what: string): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new CheckpointError(`Cannot read ${what}: ${name} is not UTF-8: download it again`);
  }
}

/** Null for a bool that is neither 0 nor 1. */
function scalarAt(view: DataView, at: number, type: ScalarType): GgufScalar | null {
  switch (type) {
    case "u8":
      return view.getUint8(at);
    case "i8":
      return view.getInt8(at);
    case "u16":
      return view.getUint16(at, true);
    case "i16":
      return view.getInt16(at, true);
    case "u32":
      return view.getUint32(at, true);
    case "i32":
      return view.getInt32(at, true);
    case "f32":
      return view.getFloat32(at, true);
    case "bool":
      return view.getUint8(at) > 1 ? null : view.getUint8(at) === 1;
    case "u64":
      return narrowed(view.getBigUint64(at, true));
    case "i64":
      return narrowed(view.getBigInt64(at, true));
    case "f64":
      return view.getFloat64(at, true);
  }
}

/** @param bytes The elements, whose lengths were checked. */
function lazyArray(
  bytes: Uint8Array,
  type: GgufArray["type"],
  length: number,
  key: string,
  what: string,
): GgufArray {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (type !== "string") {
    const size = SCALAR_BYTES[type];
    const element = (i: number) => scalarAt(view, i * size, type) ?? true;
    return { type, length, values: () => Array.from({ length }, (_, i) => element(i)) };
  }
  const values = () => {
    let at = 0;
    return Array.from({ length }, () => {
      const end = at + 8 + view.getUint32(at, true);
      const text = utf8(bytes.subarray(at + 8, end), `a string of ${shown(key)}`, what);
      at = end;
      return text;
    });
  };
  return { type, length, values };
}

function alignmentOf(metadata: Metadata, what: string): number {
  const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  const isSound = typeof alignment === "number" && Number.isInteger(Math.log2(alignment)) &&
    alignment >= 1 && alignment <= MAX_ALIGNMENT;
  if (isSound) return alignment;
  throw new CheckpointError(
    `Cannot read ${what}: general.alignment must be a power of two, at most ${MAX_ALIGNMENT}: ` +
      `current value is ${isArray(alignment) ? "a list" : shown(alignment)}`,
  );
}

function alignedUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

// ---------------------------------------------------------------- tensors

interface Place {
  alignment: number;
  dataStart: number;
  /** Of the file. */
  size: number;
  what: string;
}

/** Tensors with their types and bytes: inside the file, aligned, and none over another. */
function placedTensors(raw: readonly RawTensor[], place: Place): Map<string, TensorInfo> {
  const ordered = raw.toSorted((a, b) => a.offset - b.offset);
  const dataBytes = place.size - place.dataStart;
  const found = ordered.map((tensor, i) => {
    const end = ordered[i + 1]?.offset ?? Math.max(dataBytes, 0);
    return { ...tensor, layouts: fittingLayouts(tensor, end - tensor.offset, place) };
  });
  const certain = certainLayouts(found);
  const placed = new Map(found.map((each) => [each.name, placedTensor(each, place, certain)]));
  return new Map(raw.map(({ name }) => [name, placed.get(name)!]));
}

interface FoundTensor extends RawTensor {
  layouts: readonly TypeLayout[];
}

/** Layouts of a tensor's type that its room has place for: those that fill it, where any does. */
function fittingLayouts(
  tensor: RawTensor,
  room: number,
  { alignment, what }: Place,
): readonly TypeLayout[] {
  const { name, dimensions, typeId, offset } = tensor;
  const layouts = layoutsOf(typeId);
  const fail = (reason: string): never => {
    throw new CheckpointError(`Cannot read tensor ${shown(name)} of ${what}: ${reason}`);
  };
  if (layouts.length === 0) {
    throw new UnsupportedModelError(
      `Cannot read tensor ${shown(name)} of ${what}: ${refusalOf(typeId)}`,
    );
  }
  if (offset % alignment !== 0) {
    return fail(`its offset must be a multiple of ${alignment}: current value is ${offset}`);
  }
  const weights = weightsOf(dimensions);
  if (weights === null) return fail(`its shape is too large: ${shown(dimensions)}`);
  const whole = layouts.filter(({ blockWeights }) => dimensions[0] % blockWeights === 0);
  if (whole.length === 0) {
    const { dtype, blockWeights } = layouts[0];
    return fail(
      `rows of ${dtype} must be of a multiple of ${blockWeights} weights: current value is ` +
        `${dimensions[0]}`,
    );
  }
  const inside = whole.filter((layout) => (bytesOf(layout, weights) ?? Infinity) <= room);
  if (inside.length === 0) {
    const bytes = bytesOf(whole[0], weights);
    return fail(
      `${weights} weights of ${whole[0].dtype} take ${
        bytes ?? "too many"
      } bytes and the file has ` +
        `${Math.max(room, 0)} before its end or the next tensor: it is cut short or damaged, ` +
        "or another program's type of the same number",
    );
  }
  const filling = inside.filter((layout) =>
    room - bytesOf(layout, weights)! < Math.max(alignment, DEFAULT_ALIGNMENT)
  );
  return filling.length > 0 ? filling : inside;
}

/** Null when the product is no safe integer: it must not wrap or round. */
function weightsOf(dimensions: readonly number[]): number | null {
  let weights = 1;
  for (const size of dimensions) {
    weights *= size;
    if (!Number.isSafeInteger(weights)) return null;
  }
  return weights;
}

/** What the tensors that fit one layout only say of the numbers that stand for several. */
function certainLayouts(all: readonly FoundTensor[]): Map<number, TypeLayout> {
  const certain = all.filter(({ layouts }) => layouts.length === 1);
  return new Map(certain.map(({ typeId, layouts }) => [typeId, layouts[0]]));
}

/** A small tensor may fit two types of one number: then it is what the file's others are. */
function placedTensor(
  { layouts, dimensions, offset, typeId }: FoundTensor,
  { dataStart }: Place,
  certain: ReadonlyMap<number, TypeLayout>,
): TensorInfo {
  const layout = layouts.find((each) => each === certain.get(typeId)) ?? layouts[0];
  return {
    dtype: layout.dtype,
    shape: dimensions.toReversed(),
    byteOffset: dataStart + offset,
    byteLength: bytesOf(layout, weightsOf(dimensions)!)!,
  };
}
