/**
 * Reads `.safetensors` files: 8 bytes header length, a JSON header, then the tensors' bytes. Only
 * the header is read on opening, and nothing in it is believed before it was checked against the
 * file's real size; tensors are read by position when asked for.
 *
 * Source: the safetensors README, "Format" and its `Metadata::validate` (contiguous, no holes).
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { type ByteSource, type OpenBytes, openBytes } from "./byte_source.ts";
import { CheckpointError, shown, UnsupportedModelError } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject, parseJson, utf8Text } from "./json.ts";
import { checkRange, type TensorInfo, type WeightFile } from "./tensors.ts";
import type { Allocate } from "./weights.ts";

/** Bytes of an element of each type that this version reads. */
const ELEMENT_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  // Words of codes in MLX's folders.
  U32: 4,
  BOOL: 1,
} as const;
export type SafetensorsType = keyof typeof ELEMENT_BYTES;

/** Types that newer files may have and no model that we run uses. */
const UNREAD_TYPES = new Set(
  ["U16", "U64", "C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0"]
    .concat(["F8_E4M3FNUZ", "F8_E5M2FNUZ"]),
);

const LENGTH_BYTES = 8;
/** The limit of the official reader. */
const MAX_HEADER_BYTES = 100_000_000;

/** `headerSha256` is that of the length and header bytes. */
export interface SafetensorsFile extends WeightFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * All bytes of a tensor, at the start of a buffer of their own (so that typed arrays can view it)
   * or of one that `allocate` gives.
   */
  read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>>;
  /** `length` bytes of a tensor from its byte `start`. */
  readRange(
    name: string,
    start: number,
    length: number,
    allocate?: Allocate,
  ): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/**
 * Opens a file and reads its header.
 *
 * @throws {CheckpointError} If there is no such file or it is not sound.
 * @throws {UnsupportedModelError} If a tensor has a type that this version does not read.
 */
export async function openSafetensors(
  path: string,
  open: OpenBytes = openBytes,
): Promise<SafetensorsFile> {
  const source = await open(path);
  try {
    const { headerBytes, sha256 } = await readHeader(source);
    const name = shown(basename(path));
    const what = `the header of ${name}`;
    const header = parseJson(utf8Text(headerBytes, what), what);
    const tensors = parseHeader(header, LENGTH_BYTES + headerBytes.length, source.size, name);
    return new OpenFile(source, sha256, parseMetadata(header as JsonObject, name), tensors);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readHeader(source: ByteSource) {
  const { path, size } = source;
  const fail = (reason: string): never => {
    throw new CheckpointError(
      `Cannot read ${shown(basename(path))} as a safetensors file: ${reason}, download it again`,
    );
  };
  if (size < LENGTH_BYTES) fail(`it has only ${size} bytes`);
  const lengthBytes = await source.read(0, LENGTH_BYTES);
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    fail(`its header must have at most ${MAX_HEADER_BYTES} bytes and claims ${length}`);
  }
  if (Number(length) > size - LENGTH_BYTES) {
    fail(`its header claims ${length} bytes and the file has ${size}`);
  }
  const headerBytes = await source.read(LENGTH_BYTES, Number(length));
  if (headerBytes[0] !== 0x7b) fail("its header must begin with a brace");
  const sha256 = createHash("sha256").update(lengthBytes).update(headerBytes).digest("hex");
  return { headerBytes, sha256 };
}

/**
 * Checks a parsed header and gives its tensors. Pure, so that tests can reach every rule.
 *
 * @param dataStart Offset of the first tensor byte in the file.
 * @param what Names the file in errors.
 */
export function parseHeader(
  header: Json,
  dataStart: number,
  fileBytes: number,
  what: string,
): Map<string, TensorInfo> {
  if (!isJsonObject(header)) {
    throw new CheckpointError(`Cannot read ${what}: its header must be a JSON object`);
  }
  const tensors = new Map<string, TensorInfo>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    tensors.set(name, parseTensor(name, entry, dataStart, what));
  }
  checkContiguous(tensors, dataStart, fileBytes, what);
  return tensors;
}

function parseTensor(name: string, entry: Json, dataStart: number, what: string): TensorInfo {
  const fail = (rule: string, value: unknown): never => {
    throw new CheckpointError(
      `Cannot read tensor ${shown(name)} of ${what}: ${rule}: current value is ${shown(value)}`,
    );
  };
  if (!isJsonObject(entry)) return fail("its entry must be an object", entry);
  const dtype = parseType(name, entry.dtype, what) ??
    fail("dtype must be a type name", entry.dtype);
  const shape = entry.shape;
  if (!isSizes(shape)) return fail("shape must be a list of non-negative integers", shape);
  const offsets = entry.data_offsets;
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
    return fail("data_offsets must be two ascending byte offsets", offsets);
  }
  const byteLength = offsets[1] - offsets[0];
  const expected = sizeOf(shape, ELEMENT_BYTES[dtype]);
  if (expected !== byteLength) {
    return fail(`shape ${shown(shape)} of ${dtype} must fill its byte range`, offsets);
  }
  return { dtype, shape, byteOffset: dataStart + offsets[0], byteLength };
}

function parseType(name: string, dtype: Json | undefined, what: string): SafetensorsType | null {
  if (typeof dtype !== "string") return null;
  if (Object.hasOwn(ELEMENT_BYTES, dtype)) return dtype as SafetensorsType;
  if (!UNREAD_TYPES.has(dtype)) return null;
  throw new UnsupportedModelError(
    `Cannot read tensor ${shown(name)} of ${what} as its type is ${dtype}: ` +
      `this version reads ${Object.keys(ELEMENT_BYTES).join(", ")}`,
  );
}

function isSizes(value: Json | undefined): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && Number(n) >= 0);
}

/** Bytes of a shape, or null when they are no safe integer: a product must not wrap or round. */
function sizeOf(shape: readonly number[], elementBytes: number): number | null {
  if (shape.includes(0)) return 0;
  let bytes = elementBytes;
  for (const dimension of shape) {
    bytes *= dimension;
    if (!Number.isSafeInteger(bytes)) return null;
  }
  return bytes;
}

/** Tensors must follow each other without holes or overlaps and end where the file ends. */
function checkContiguous(
  tensors: ReadonlyMap<string, TensorInfo>,
  dataStart: number,
  fileBytes: number,
  what: string,
): void {
  const ordered = [...tensors].sort(([, a], [, b]) =>
    a.byteOffset - b.byteOffset || a.byteLength - b.byteLength
  );
  let end = dataStart;
  for (const [name, tensor] of ordered) {
    if (tensor.byteOffset !== end) {
      const fault = tensor.byteOffset < end ? "overlaps the one before it" : "follows a hole";
      throw new CheckpointError(
        `Cannot read ${what} as its tensors must be contiguous: ${shown(name)} ${fault}`,
      );
    }
    end += tensor.byteLength;
  }
  if (end !== fileBytes) {
    const fault = end > fileBytes ? "it is cut short, download it again" : "it has trailing bytes";
    throw new CheckpointError(
      `Cannot read ${what}: its header describes ${end} bytes, the file has ${fileBytes}: ${fault}`,
    );
  }
}

function parseMetadata(header: JsonObject, what: string): Record<string, string> {
  const metadata = header.__metadata__ ?? {};
  const isMap = isJsonObject(metadata) &&
    Object.values(metadata).every((value) => typeof value === "string");
  if (isMap) return metadata as Record<string, string>;
  throw new CheckpointError(
    `Cannot read ${what}: __metadata__ must map strings to strings: ` +
      `current value is ${shown(metadata)}`,
  );
}

class OpenFile implements SafetensorsFile {
  readonly path: string;
  readonly fileBytes: number;
  readonly modifiedMs: number;
  readonly headerSha256: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #source: ByteSource;

  constructor(
    source: ByteSource,
    headerSha256: string,
    metadata: Readonly<Record<string, string>>,
    tensors: ReadonlyMap<string, TensorInfo>,
  ) {
    this.path = source.path;
    this.fileBytes = source.size;
    this.modifiedMs = source.modifiedMs;
    this.headerSha256 = headerSha256;
    this.metadata = metadata;
    this.tensors = tensors;
    this.#source = source;
  }

  async read(name: string, allocate?: Allocate): Promise<Uint8Array<ArrayBuffer>> {
    return await this.readRange(name, 0, this.#tensor(name).byteLength, allocate);
  }

  async readRange(
    name: string,
    start: number,
    length: number,
    allocate?: Allocate,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const tensor = this.#tensor(name);
    checkRange(name, tensor, start, length);
    return await this.#source.read(tensor.byteOffset + start, length, allocate);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  #tensor(name: string): TensorInfo {
    const tensor = this.tensors.get(name);
    if (tensor !== undefined) return tensor;
    throw new CheckpointError(`Cannot read ${shown(this.path)}: it has no tensor ${shown(name)}`);
  }
}
