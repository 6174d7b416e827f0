/**
 * Damage to GGUF headers, field by field: each is set to numbers and texts at which readers break, typed
 * anew, taken out, and written twice. The bytes behind a field stay where they are or move along, so that
 * what follows is misread, or still sound.
 */
import { type GgufField, type GgufParts, GgufWriter, joinedParts, VALUE } from "./gguf_builder.ts";

/** Bytes in the place of others. */
interface Patch {
  at: number;
  remove: number;
  insert: Uint8Array;
}

/** One damaged file. */
export interface Case {
  /** For people: the field and what became of it. */
  what: string;
  bytes(): Uint8Array<ArrayBuffer>;
}

interface Mutation {
  what: string;
  patches: readonly Patch[];
}

/** Every field of the header on its own, and the file's length. */
export function* ggufCases(parts: GgufParts): Generator<Case> {
  for (const { what, patches } of headerMutations(parts)) {
    yield { what, bytes: () => joinedParts(patched(parts, patches)) };
  }
  yield* lengthCases(joinedParts(parts), parts.header.length);
  yield* dataCases(parts);
}

/** Two or three fields at once, which ones and how `random` says. */
export function* ggufPairs(parts: GgufParts, count: number, random: () => number): Generator<Case> {
  const all = [...headerMutations(parts)].filter(({ patches }) => patches.length === 1);
  const pick = () => all[Math.floor(random() * all.length)];
  for (let i = 0; i < count; i++) {
    const chosen = Array.from({ length: 2 + i % 2 }, pick);
    yield {
      what: chosen.map(({ what }) => what).join("; "),
      bytes: () => joinedParts(patched(parts, chosen.flatMap(({ patches }) => patches))),
    };
  }
}

/** Patches from behind, so that places hold; of those that overlap the one furthest behind counts. */
function patched(parts: GgufParts, patches: readonly Patch[]): GgufParts {
  let header = parts.header;
  let from = Infinity;
  for (const { at, remove, insert } of patches.toSorted((a, b) => b.at - a.at)) {
    if (at + remove > from) continue;
    const rest = header.subarray(at + remove);
    header = new GgufWriter().bytes(header.subarray(0, at)).bytes(insert).bytes(rest).done();
    from = at;
  }
  return { ...parts, header };
}

/** Cut at every byte of the header and at some behind, and longer than it says. */
export function* lengthCases(file: Uint8Array<ArrayBuffer>, header: number): Generator<Case> {
  const cut = (length: number): Case => ({
    what: `cut to ${length} bytes`,
    bytes: () => file.slice(0, length),
  });
  for (let length = 0; length < Math.min(header + 64, file.length); length++) yield cut(length);
  const step = Math.ceil((file.length - header) / 50);
  for (let length = header + 64; length < file.length; length += step) yield cut(length);
  yield cut(file.length - 1);
  for (const more of [1, 2, 31, 32, 33, 4096]) {
    for (const fill of [0, 0x24, 0xff]) {
      yield {
        what: `${more} bytes ${fill} behind`,
        bytes: () => new GgufWriter().bytes(file).bytes(new Uint8Array(more).fill(fill)).done(),
      };
    }
  }
}

/** Data of zeros, of ones, and with a bad byte at each of some places. */
function* dataCases(parts: GgufParts): Generator<Case> {
  const { data } = parts;
  const changed = (what: string, change: (data: Uint8Array) => void): Case => ({
    what: `data: ${what}`,
    bytes: () => {
      const copy = data.slice();
      change(copy);
      return joinedParts({ ...parts, data: copy });
    },
  });
  for (const fill of [0, 0x7f, 0x80, 0xff]) yield changed(`all ${fill}`, (data) => data.fill(fill));
  for (let at = 0; at < data.length; at += Math.ceil(data.length / 200)) {
    yield changed(`255 from ${at} on`, (data) => data.fill(255, at, at + 32));
  }
}

function* headerMutations(parts: GgufParts): Generator<Mutation> {
  for (const field of parts.fields) yield* fieldMutations(field, parts);
}

function* fieldMutations(field: GgufField, parts: GgufParts): Generator<Mutation> {
  const { what, at, bytes: remove } = field;
  const replaced = (insert: Uint8Array, how: string): Mutation => ({
    what: `${what}: ${how}`,
    patches: [{ at, remove, insert }],
  });
  switch (field.kind) {
    case "key":
    case "tensor":
      return yield* entryMutations(field, parts);
    case "text":
      for (const text of textsFor(field, parts)) {
        yield replaced(lengthAnd(text), `text of ${text.length} bytes ${hex(text)}`);
      }
      return yield* spoiledTexts(field, parts);
    case "value":
      for (const value of VALUES) yield replaced(value, `typed anew ${hex(value)}`);
      return;
    default:
      for (const value of numbersFor(field, parts)) yield replaced(value, hex(value));
  }
}

/** Left out and written twice, with and without the number of entries. */
function* entryMutations({ what, kind, at, bytes }: GgufField, { header, fields }: GgufParts) {
  const count = fields.find((field) => field.what === `number of ${kind}s`)!;
  const number = new DataView(header.buffer).getBigUint64(count.at, true);
  const counted = (value: bigint): Patch => ({ at: count.at, remove: 8, insert: u64(value) });
  const out: Patch = { at, remove: bytes, insert: new Uint8Array() };
  const twice: Patch = { at, remove: 0, insert: header.slice(at, at + bytes) };
  yield { what: `${kind} ${what}: left out`, patches: [counted(number - 1n), out] };
  yield { what: `${kind} ${what}: left out, but counted`, patches: [out] };
  yield { what: `${kind} ${what}: twice`, patches: [counted(number + 1n), twice] };
  yield { what: `${kind} ${what}: twice, but counted once`, patches: [twice] };
}

// ---------------------------------------------------------------- numbers

const EDGES = [0n, 1n, 2n, 3n, 0x7fn, 0x80n, 0xffn, 0x100n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n]
  .concat([2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 2n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 32n + 1n])
  .concat([2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n])
  .concat([2n ** 64n - 2n, 2n ** 64n - 1n]);

/** Types of values and of tensors, known and unknown, and byte orders of the magic and versions. */
const TYPES: Partial<Record<GgufField["kind"], readonly bigint[]>> = {
  valueType: Array.from({ length: 15 }, (_, i) => BigInt(i)),
  tensorType: [...Array(48).keys(), 66, 134, 135, 142, 143, 335].map(BigInt),
};

const FLOATS = [0, -0, 1, -1, 0.5, 1e-45, 5e-324, 3e38, 1e308, 2 ** 24, 2 ** 53, NaN]
  .concat([Infinity, -Infinity]);

const BYTES: Partial<Record<GgufField["kind"], number>> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** Values of a field's size that are not its own. */
function* numbersFor(field: GgufField, { header, data }: GgufParts): Generator<Uint8Array> {
  const { kind, at } = field;
  const own = header.slice(at, at + (BYTES[kind] ?? 4));
  const seen = new Set([hex(own)]);
  const value = own.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);
  const near = [value - 1n, value + 1n, value << 1n, value >> 1n, value + 2n ** 32n, value ^ 1n];
  const sizes = [header.length, data.length, header.length + data.length].map(BigInt);
  const integers = [...EDGES, ...near, ...sizes, ...TYPES[kind] ?? []];
  const all = integers.map((each) => u64(BigInt.asUintN(64, each)).slice(0, own.length));
  if (kind === "f32" || kind === "f64") all.push(...FLOATS.map((each) => float(kind, each)));
  all.push(own.toReversed());
  for (const each of all) {
    if (seen.has(hex(each))) continue;
    seen.add(hex(each));
    yield each;
  }
}

function float(kind: "f32" | "f64", value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(
    (kind === "f32" ? Float32Array.of(value) : Float64Array.of(value)).buffer,
  );
}

function u64(value: bigint): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}

// ---------------------------------------------------------------- texts

const utf8 = (text: string) => new TextEncoder().encode(text);

/** Not UTF-8, and what programs trip over. */
const TEXTS = [
  Uint8Array.of(0xff),
  Uint8Array.of(0xc0, 0xaf),
  Uint8Array.of(0xed, 0xa0, 0x80),
  Uint8Array.of(0xf0, 0x9f, 0x98),
  Uint8Array.of(0xf5, 0x80, 0x80, 0x80),
  ...["", "\0", "a\0b", "\ufeff", "\u{10ffff}", " ", "\n\x1b[31m", "__proto__", "constructor"]
    .map(utf8),
  ...["general.architecture", "split.count", "blk.0.attn_q.weight", "blk.1.attn_q.weight"]
    .map(utf8),
  ...["blk.99999.ffn_up.weight", "blk.00.attn_q.weight", "blk.0.attn_q.bias", "output.weight"]
    .map(utf8),
  ...["rope_freqs.weight", "{{ 1 }", "{% for x in y %}", "{{ raise_exception('x') }}"].map(utf8),
  utf8("x".repeat(1025)),
  utf8("\u2581".repeat(600)),
  utf8("x".repeat(65536)),
];
/** What keys of names may say: architectures, tokenizers. */
const NAMES = ["llama", "bitnet", "bitnet-b1.58", "qwen3", "gemma3", "minicpm", "maple", "gpt2"]
  .concat(["bert", "t5", "llama3", "qwen2", "default", "falcon", "gpt-neox", "linear", "yarn"])
  .map(utf8);

/** Other texts of the same kind in this file, and bad ones. */
function textsFor({ what, at, bytes }: GgufField, { header, fields }: GgufParts): Uint8Array[] {
  const kindOf = (name: string) => /^(key|name) /.exec(name)?.[1] ?? "value";
  const kind = kindOf(what);
  const others = kind === "value" ? NAMES : fields
    .filter((field) => field.kind === "text" && kindOf(field.what) === kind)
    .map((field) => header.slice(field.at + 8, field.at + field.bytes));
  const own = hex(header.slice(at + 8, at + bytes));
  return [...TEXTS, ...others].filter((text) => hex(text) !== own);
}

/** Single bytes within a text. */
function* spoiledTexts({ what, at, bytes }: GgufField, { header }: GgufParts): Generator<Mutation> {
  const last = at + bytes - 1;
  for (const place of new Set([at + 8, at + 8 + (bytes - 8 >> 1), last])) {
    if (place < at + 8 || place > last) continue;
    for (const byte of [0, 0x80, 0xc3, 0xff, header[place] ^ 0x20]) {
      const insert = Uint8Array.of(byte);
      yield {
        what: `${what}: byte ${place - at - 8} is ${byte}`,
        patches: [{ at: place, remove: 1, insert }],
      };
    }
  }
}

function lengthAnd(text: Uint8Array): Uint8Array {
  return new GgufWriter().u64(text.length).bytes(text).done();
}

// ---------------------------------------------------------------- values

/** Values of every type, each with its type. */
const VALUES = [...valuesOfTypes()];

function* valuesOfTypes(): Generator<Uint8Array> {
  const typed = (write: (writer: GgufWriter) => void) => {
    const writer = new GgufWriter();
    write(writer);
    return writer.done();
  };
  for (const type of ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"] as const) {
    for (const value of [0, 1, 4, -1]) yield typed((writer) => writer.value([type, value]));
  }
  for (const type of ["f32", "f64"] as const) {
    for (const value of [0, 0.5, 4, NaN, Infinity]) {
      yield typed((writer) => writer.value([type, value]));
    }
  }
  for (const value of [true, false]) yield typed((writer) => writer.value(["bool", value]));
  for (const value of ["", "4", "llama"]) yield typed((writer) => writer.value(["string", value]));
  for (const list of [[], [1], [1, 1, 1], [256, 128], Array(300).fill(1)]) {
    for (const type of ["u8", "i32", "f32", "u64"] as const) {
      yield typed((writer) => writer.value([type, list]));
    }
  }
  yield typed((writer) => writer.value(["bool", [true, false]]));
  yield typed((writer) => writer.value(["string", ["a", "a"]]));
  yield typed((writer) => writer.value(["string", Array(64).fill("")]));
  // Lists within a list.
  yield typed((writer) => {
    writer.u32(VALUE.array).u32(VALUE.array).u64(1).u32(VALUE.u8).u64(1).bytes(Uint8Array.of(1));
  });
}

function hex(bytes: Uint8Array): string {
  const text = Array.from(bytes.subarray(0, 24), (byte) => byte.toString(16).padStart(2, "0"));
  return text.join("") + (bytes.length > 24 ? `... (${bytes.length})` : "");
}
