/** The golden checkpoints of the conformance data, and what Hugging Face's transformers computed. */
import fs from "node:fs";
import path from "node:path";
import { fixturePath } from "./fixtures.ts";

/** How far f32 rounding alone moves outputs: an int8 code that flips moves later logits. */
export interface Noise {
  mean_abs: number;
  argmax_agreement: number;
}

export interface GoldenSequence {
  name: string;
  input_ids: number[];
  logits_file: string;
  /** Positions that `logits_file` has a row of. */
  logits_positions: number[];
  argmax_all_positions: number[];
  /** Positions at which no rounding is near enough to a tie to flip. */
  exact_positions: number[];
}

export interface GoldenGreedy {
  prompt_ids: number[];
  new_ids: number[];
  /** Gap between the best two logits, a step. */
  top1_minus_top2: number[];
  /** Tokens that survive noise of 2^-22. */
  stable_prefix: number;
  step_logits_file?: string;
}

export interface GoldenManifest {
  sequences: GoldenSequence[];
  hidden: { sequence: string; files: Record<string, { file: string; shape: number[] }> };
  greedy: GoldenGreedy[];
  sensitivity: { f32_noise: { worst: Noise; per_sequence: Record<string, Noise> } };
}

/** Rows of a .npy file. */
export interface Rows {
  count: number;
  row(index: number): Float32Array;
}

/** One checkpoint with its expected results. */
export interface GoldenModel {
  name: string;
  folder: string;
  manifest: GoldenManifest;
  read(file: string): Rows;
}

/** A plain float checkpoint, which is run only with `quantize`. */
export const PLAIN_MODEL = "llama-plain-bf16";

const MODELS = fixturePath("models");

/** All checkpoints; one that is another's twin has the other's results. */
export function goldenModels(): GoldenModel[] {
  return fs.readdirSync(MODELS).sort().map(goldenModel);
}

export function goldenModel(name: string): GoldenModel {
  const folder = path.join(MODELS, name);
  const expected = expectedFolder(folder);
  const read = (file: string) => readNpy(path.join(expected, file));
  return { name, folder, manifest: readJson(path.join(expected, "manifest.json")), read };
}

function expectedFolder(folder: string): string {
  const own = path.join(folder, "expected");
  const { same_as: twin } = readJson(path.join(own, "manifest.json"));
  return twin === undefined ? own : path.dirname(path.resolve(own, twin));
}

// deno-lint-ignore no-explicit-any -- files of the conformance data, which are as their README says
export function readJson(file: string): any {
  return JSON.parse(fs.readFileSync(file, "utf8"));
}

/** NumPy version 1.0, little-endian float32, C order, two dimensions. */
export function readNpy(file: string): Rows {
  const bytes = fs.readFileSync(file);
  const dataStart = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, dataStart);
  const shape = /'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\)/.exec(header);
  if (shape === null) throw new SyntaxError(`Cannot read ${file}: its header is ${header}`);
  const [count, columns] = shape.slice(1).map(Number);
  const data = new Float32Array(Uint8Array.from(bytes.subarray(dataStart)).buffer);
  return { count, row: (index) => data.subarray(index * columns, (index + 1) * columns) };
}

/** Largest and mean absolute difference of two rows. A NaN in either counts as infinite. */
export function differenceOf(a: ArrayLike<number>, b: ArrayLike<number>) {
  let max = a.length === b.length ? 0 : Infinity;
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    sum += difference;
    if (!(difference <= max)) max = Number.isNaN(difference) ? Infinity : difference;
  }
  return { max, mean: sum / a.length };
}

/** Index of the largest value, the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
