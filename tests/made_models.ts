/**
 * Small models of many architectures, whose weights follow from the names of their tensors by the
 * formula of `fixtures_made/make.py`, which had public implementations compute their logits.
 */
import { readFileSync } from "node:fs";
import type { JsonObject } from "../runtime/json.ts";
import { safetensorsFile, type TestTensor } from "./safetensors_file.ts";

/** How a tensor's values are made: `embedding`, `norm`, `group 128` and the like. */
export interface MadeTensor {
  shape: number[];
  kind: string;
}

export interface MadeModel {
  name: string;
  dtype: "BF16" | "F16";
  config: JsonObject;
  tensors: Record<string, MadeTensor>;
  /** Of each sequence the positions whose logits noise does not move. */
  exact: number[][];
  /** What follows each sequence greedily, and how far behind the next likeliest was, of the largest logit. */
  greedy?: { ids: number[]; gaps: number[] }[];
  /** Of each sequence and pooling, whether noise leaves the vector where it is. */
  exactVectors?: boolean[][];
}

interface Made {
  sequences: number[][];
  models: MadeModel[];
}

/** Sequences are of ids, so this only has to be one. */
export const TOKENIZER = {
  model: { type: "BPE", vocab: { a: 0 }, merges: [] },
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
  decoder: { type: "ByteLevel" },
};

const FOLDER = new URL("fixtures_made/", import.meta.url);

export const MADE: Made = JSON.parse(readFileSync(new URL("models.json", FOLDER), "utf8"));

export function madeModel(name: string): MadeModel {
  return MADE.models.find((model) => model.name === name)!;
}

/** Published logits, (tokens, vocabSize) of each sequence. */
export function publishedLogits({ name, config }: MadeModel): Float32Array[] {
  const bytes = Uint8Array.from(readFileSync(new URL(`${name}.f32`, FOLDER)));
  const all = new Float32Array(bytes.buffer);
  let at = 0;
  return MADE.sequences.map(({ length }) =>
    all.subarray(at, at += length * Number(config.vocab_size))
  );
}

/** Published vectors of length 1 of an embedding model, one a sequence and pooling. */
export function publishedVectors({ name, config, exactVectors }: MadeModel): Float32Array[][] {
  const bytes = Uint8Array.from(readFileSync(new URL(`${name}.pooled.f32`, FOLDER)));
  const all = new Float32Array(bytes.buffer);
  const size = Number(config.hidden_size);
  let at = 0;
  return exactVectors!.map((poolings) => poolings.map(() => all.subarray(at, at += size)));
}

function fnv(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value;
}

/** 32 bits of a place: the finaliser of MurmurHash3 over place and name. */
function wordsOf(name: string): (place: number) => number {
  const seed = fnv(name);
  return (place) => {
    let h = Math.imul(place, 0x9e3779b1) + seed | 0;
    h = Math.imul(h ^ h >>> 16, 0x85ebca6b);
    h = Math.imul(h ^ h >>> 13, 0xc2b2ae35);
    return (h ^ h >>> 16) >>> 0;
  };
}

/** Values of a tensor, row-major. */
export function madeValues(name: string, { shape, kind }: MadeTensor): Float32Array {
  const words = wordsOf(name);
  const top = (i: number) => words(i) >>> 24;
  const valueOf: Record<string, (i: number) => number> = {
    embedding: (i) => (top(i) - 128) / 64,
    // numpy rounds halves to even.
    master: (i) => (top(i) - (top(i) % 2 === 0 ? 128 : 127)) / 1024,
    norm: (i) => 1 + (Math.floor(top(i) / 4) - 32) / 128,
    offset: (i) => (Math.floor(top(i) / 4) - 32) / 128,
  };
  const length = shape.reduce((product, size) => product * size, 1);
  return Float32Array.from({ length }, (_, i) => (valueOf[kind] ?? ternary(name, shape, kind))(i));
}

/** Codes times magnitudes of whole matrices, blocks of rows, rows, or groups of features. */
function ternary(name: string, shape: readonly number[], kind: string): (i: number) => number {
  const k = shape.at(-1)!;
  const n = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const [what, size] = kind.split(" ");
  const rows = { matrix: n, blocks: Math.floor(n / Number(size ?? 1)), row: 1, group: 1 }[what]!;
  const features = what === "group" ? Number(size) : k;
  const perRow = Math.ceil(k / features);
  const [codes, magnitudes] = [wordsOf(name), wordsOf(`${name}#`)];
  return (i) => {
    const at = Math.floor(Math.floor(i / k) / rows) * perRow + Math.floor(i % k / features);
    const magnitude = (1 + (magnitudes(at) >>> 25) / 128) / 16;
    return ((codes(i) >>> 8) % 3 - 1) * magnitude;
  };
}

/** The files of the model's folder. */
export function madeFolder({ dtype, config, tensors }: MadeModel) {
  const stored: Record<string, TestTensor> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    const values = madeValues(name, tensor);
    stored[name] = { dtype, shape: tensor.shape, bytes: encoded(values, dtype) };
  }
  return {
    "config.json": JSON.stringify(config),
    "model.safetensors": safetensorsFile(stored),
  };
}

function encoded(values: Float32Array, dtype: MadeModel["dtype"]): Uint8Array {
  if (dtype === "F16") return new Uint8Array(Float16Array.from(values).buffer);
  const words = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
