/** Damaged models: a sound one first, then it with every field of every file damaged, in turn. */
import { randomOf } from "../codegen/random.ts";
import type { FolderParts, SafetensorsParts } from "./fuzz_folders.ts";
import { SPLIT_COUNT } from "./fuzz_ggufs.ts";
import { type GgufParts, joinedParts } from "./gguf_builder.ts";
import { type Case, ggufCases, ggufPairs, lengthCases } from "./gguf_mutations.ts";
import { jsonCases } from "./json_mutations.ts";

/** A model whose files may be damaged. */
export interface ModelCase {
  /** For people. */
  what: string;
  /** The GGUF file that is opened, or null for the folder of all files. */
  gguf: string | null;
  files(): Record<string, Uint8Array>;
}

function single({ what, bytes }: Case): ModelCase {
  return { what, gguf: "model.gguf", files: () => ({ "model.gguf": bytes() }) };
}

/** Each field of a file, then `pairs` times some of them together. */
export function* ggufModelCases(parts: GgufParts, pairs: number): Generator<ModelCase> {
  yield single({ what: "sound", bytes: () => joinedParts(parts) });
  for (const each of ggufCases(parts)) yield single(each);
  for (const each of ggufPairs(parts, pairs, randomOf(parts.header.length))) yield single(each);
}

/** Some fields of a header that is read in several steps, and its ends. */
export function* longCases(parts: GgufParts, pairs: number): Generator<ModelCase> {
  const file = joinedParts(parts);
  yield single({ what: "sound", bytes: () => file });
  for (const edge of [2 ** 18, 2 ** 19, parts.header.length]) {
    for (let length = edge - 20; length <= edge + 20; length++) {
      yield single({ what: `cut to ${length} bytes`, bytes: () => file.slice(0, length) });
    }
  }
  for (const each of ggufPairs(parts, pairs, randomOf(1))) yield single(each);
}

// ---------------------------------------------------------------- split files

const partName = (part: number, count = SPLIT_COUNT) =>
  `model-${String(part + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.gguf`;

/** The files in all orders, with some twice and some missing, and each damaged among sound ones. */
export function* splitCases(parts: readonly GgufParts[]): Generator<ModelCase> {
  const sound = parts.map(joinedParts);
  const named = (
    files: readonly (Uint8Array | null)[],
    nameOf = partName,
  ): Record<string, Uint8Array> =>
    Object.fromEntries(
      files.flatMap((bytes, i) => bytes === null ? [] : [[nameOf(i), bytes]]),
    );
  yield { what: "sound", gguf: partName(0), files: () => named(sound) };
  for (let order = 0; order < (SPLIT_COUNT + 1) ** SPLIT_COUNT; order++) {
    const places = sound.map((_, i) =>
      Math.floor(order / (SPLIT_COUNT + 1) ** i) % (SPLIT_COUNT + 1)
    );
    const files = named(places.map((place) => sound[place] ?? null));
    for (let i = 0; i < SPLIT_COUNT; i++) {
      yield { what: `files ${places}, by the name of ${i}`, gguf: partName(i), files: () => files };
    }
  }
  for (const count of [0, 1, 2, 4, 1000, 1001, 99999]) {
    const files = named(sound, (i) => partName(i, count));
    yield { what: `named as ${count} files`, gguf: partName(0, count), files: () => files };
  }
  yield { what: "the first alone", gguf: "model.gguf", files: () => ({ "model.gguf": sound[0] }) };
  for (const [i, part] of parts.entries()) {
    for (const { what, bytes } of ggufCases(part)) {
      // Keys of the model are those of a file that is not split.
      if (i === 0 && !/split|number of|magic|version|cut|behind/.test(what)) continue;
      const files = () => named(sound.map((own, j) => i === j ? bytes() : own));
      yield { what: `file ${i}: ${what}`, gguf: partName(0), files };
    }
  }
}

// ---------------------------------------------------------------- folders

/** Every value and name in each JSON file and in each header of tensors; lengths; files of others. */
export function* folderCases(parts: FolderParts): Generator<ModelCase> {
  const sound = soundFiles(parts);
  const changed = (file: string, { what, bytes }: Case): ModelCase => ({
    what: `${file}: ${what}`,
    gguf: null,
    files: () => ({ ...sound, [file]: bytes() }),
  });
  yield { what: "sound", gguf: null, files: () => sound };
  for (const file of Object.keys(sound)) {
    const { [file]: _, ...others } = sound;
    yield { what: `${file} is missing`, gguf: null, files: () => others };
    for (const other of Object.keys(others)) {
      yield changed(file, { what: `is ${other}`, bytes: () => sound[other].slice() });
    }
  }
  for (const [file, json] of Object.entries(parts.json)) {
    for (const each of jsonCases(json)) yield changed(file, each);
  }
  for (const [file, weights] of Object.entries(parts.weights)) {
    for (const each of safetensorsCases(weights)) yield changed(file, each);
  }
}

function soundFiles({ json, weights }: FolderParts): Record<string, Uint8Array<ArrayBuffer>> {
  const texts = Object.entries(json).map(([name, each]) => [name, utf8(JSON.stringify(each))]);
  const files = Object.entries(weights).map(([name, each]) => [name, safetensorsFile(each)]);
  return Object.fromEntries([...texts, ...files]);
}

const HEADER_LENGTHS = [0n, 1n, 2n, 7n, 8n, 0xffn, 0xffffn, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n]
  .concat([2n ** 32n + 1n, 100_000_000n, 100_000_001n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n])
  .concat([2n ** 63n, 2n ** 64n - 8n, 2n ** 64n - 1n]);

function* safetensorsCases(parts: SafetensorsParts): Generator<Case> {
  const { header, data } = parts;
  const text = utf8(JSON.stringify(header));
  const file = safetensorsFile(parts);
  const own = BigInt(text.length);
  const total = BigInt(file.length);
  const near = [own - 1n, own + 1n, own + 8n, own + 2n ** 32n, total - 8n, total - 7n, total];
  for (const length of [...HEADER_LENGTHS, ...near]) {
    yield { what: `header length ${length}`, bytes: () => joined(text, data, length) };
  }
  for (const { what, bytes } of jsonCases(header)) {
    yield { what: `header: ${what}`, bytes: () => joined(bytes(), data) };
  }
  yield* lengthCases(file, text.length + 8);
}

function safetensorsFile({ header, data }: SafetensorsParts): Uint8Array<ArrayBuffer> {
  return joined(utf8(JSON.stringify(header)), data);
}

function joined(header: Uint8Array, data: Uint8Array, length = BigInt(header.length)) {
  const file = new Uint8Array(8 + header.length + data.length);
  new DataView(file.buffer).setBigUint64(0, length, true);
  file.set(header, 8);
  file.set(data, 8 + header.length);
  return file;
}

function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
