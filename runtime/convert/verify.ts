/**
 * Reads a converted model back, as any model is read, and compares it with its source: codes and
 * factors of every ternary matrix, all other numbers bit for bit.
 */
import {
  type FloatType,
  layerLinears,
  type LinearName,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import { ternaryMatrices } from "../../codegen/head/ternary.ts";
import { hasFloatHead } from "../../codegen/plan.ts";
import { firstDifference } from "../code_words.ts";
import type { ModelConfig } from "../config.ts";
import { free } from "../free.ts";
import { normsOf } from "../norms.ts";
import { attentionFactor, inverseFrequencies } from "../rope.ts";
import type { OnProgress } from "../types.ts";
import type { FloatMatrix, NormName } from "../weights.ts";
import { OutputError } from "./errors.ts";
import { convertFloats, FLOAT_BYTES } from "./floats.ts";
import { rowChunks } from "./plan.ts";
import {
  codedExpert,
  codedMatrix,
  factorOf,
  freeMatrix,
  type Source,
  type TernaryMatrix,
  ternaryMatrix,
} from "./source.ts";

export interface VerifyOptions {
  /** What is left of a factor in the written format. */
  writtenFactor: (factor: number) => number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** What was compared. */
export interface Verified {
  /** Ternary matrices. */
  matrices: number;
  /** Vectors and matrices of floats. */
  floats: number;
}

/** @throws {OutputError} Naming the first tensor that differs. */
export async function verifyModel(
  source: Source,
  written: Source,
  options: VerifyOptions,
): Promise<Verified> {
  const { writtenFactor, onProgress, signal } = options;
  compareSpecs(source.config.spec, written.config.spec);
  compareTasks(source.config, written.config);
  compareRope(source.config, written.config);
  compareTokens(source, written);
  const { spec } = source.config;
  const verified = {
    matrices: await compareTernaryRows(source, written, writtenFactor),
    floats: await compareGlobals(source, written),
  };
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    signal?.throwIfAborted();
    onProgress?.({
      phase: "verify",
      message: "Reading back",
      done: layer,
      total: spec.numHiddenLayers,
      unit: "layers",
    });
    for (const name of layerLinears(spec)) {
      await compareLinear(source, written, layer, name, writtenFactor);
      verified.matrices++;
    }
    verified.floats += await compareNorms(source, written, layer);
    if (spec.experts !== undefined) {
      verified.matrices += await compareExperts(source, written, layer, options);
    }
  }
  return verified;
}

function differs(what: string, how: string): OutputError {
  return new OutputError(
    `Cannot trust what was written: ${what} ${how}: memory or disk may be faulty, try again`,
  );
}

/** How factors and floats are kept may differ between formats; the graph may not. */
const OF_FORMATS: readonly (keyof ModelSpec)[] = [
  "embeddingType",
  "headType",
  "rowScales",
  "headSketch",
];

function compareSpecs(expected: ModelSpec, actual: ModelSpec): void {
  const keys = new Set([...Object.keys(expected), ...Object.keys(actual)] as (keyof ModelSpec)[]);
  for (const key of keys) {
    if (OF_FORMATS.includes(key)) continue;
    const [a, b] = [expected, actual].map((spec) => JSON.stringify(partOf(spec, key)));
    if (a !== b && !isNearlyEqual(expected[key], actual[key])) {
      throw differs(key, `is ${b} in place of ${a}`);
    }
  }
}

/** A field without the types in it, which may differ. */
function partOf({ experts, groups, ...spec }: ModelSpec, key: keyof ModelSpec): unknown {
  if (key === "experts") return experts && { ...experts, routerType: undefined };
  if (key === "groups") return groups && { ...groups, scaleType: undefined };
  return spec[key];
}

function compareTasks(expected: ModelConfig, actual: ModelConfig): void {
  const [a, b] = [expected, actual].map(({ task, embedding: { pooling } }) =>
    `${task}, ${pooling}`
  );
  if (a !== b) throw differs("what it is for", `is ${b} in place of ${a}`);
}

/** GGUF keeps numbers in float32. */
function isNearlyEqual(a: unknown, b: unknown): boolean {
  return typeof a === "number" && typeof b === "number" && Math.fround(a) === Math.fround(b);
}

/** Formats say in different ways how positions are turned, which end in the same frequencies. */
const MOST_RELATIVE_DIFFERENCE = 1e-6;

function compareRope(expected: ModelConfig, actual: ModelConfig): void {
  const [a, b] = [expected, actual].map(turns);
  const at = a.findIndex((wanted, i) => !(Math.abs(b[i] / wanted - 1) < MOST_RELATIVE_DIFFERENCE));
  if (at >= 0) throw differs(`number ${at} of the RoPE tables`, `is ${b[at]}, not ${a[at]}`);
}

/** Frequencies of the tables, and what their values are multiplied by. */
function turns({ localRope, ...rope }: ModelConfig): number[] {
  const tables = [rope, ...(localRope === null ? [] : [{ ...rope, ...localRope }])];
  return tables.flatMap((table) => [
    ...inverseFrequencies(table),
    attentionFactor(table.ropeScaling),
  ]);
}

function compareTokens(source: Source, written: Source): void {
  const { vocabSize } = source.tokenizer;
  for (let id = 0; id < vocabSize; id++) {
    const [a, b] = [source, written].map(({ tokenizer }) => tokenizer.tokenText(id));
    if (a !== null && a !== b) throw differs(`token ${id}`, `is ${JSON.stringify(b)}`);
  }
}

/** Tensors that stand once. @returns Their number. */
async function compareGlobals(source: Source, written: Source): Promise<number> {
  const { spec } = source.config;
  const [a, b] = [source.weights, written.weights];
  compareVectors(await a.finalNorm(), await b.finalNorm(), "the final norm");
  if (!spec.ternaryEmbedding) {
    await compareMatrices(a.embedding(), b.embedding(), "the embedding");
  }
  if (hasFloatHead(spec)) await compareMatrices(a.head(), b.head(), "the head");
  return 1 + Number(!spec.ternaryEmbedding) + Number(hasFloatHead(spec));
}

/** Rows of a ternary head or embedding that are in memory at once. */
const TERNARY_ROWS = 4096;

/** @returns The number of ternary heads and embeddings. */
async function compareTernaryRows(
  source: Source,
  written: Source,
  writtenFactor: VerifyOptions["writtenFactor"],
): Promise<number> {
  const { spec } = source.config;
  const all = ternaryMatrices(spec);
  for (const which of all) {
    for (let first = 0; first < spec.vocabSize; first += TERNARY_ROWS) {
      const count = Math.min(TERNARY_ROWS, spec.vocabSize - first);
      const [expected, actual] = await Promise.all(
        [source, written].map(async (each) =>
          codedMatrix(each.config, await each.weights.ternaryRows!(which, first, count))
        ),
      );
      compareTernary(expected, actual, writtenFactor);
    }
  }
  return all.length;
}

async function compareNorms(source: Source, written: Source, layer: number): Promise<number> {
  const { spec } = source.config;
  const [a, b] = [source.weights, written.weights];
  const norms: readonly NormName[] = normsOf(spec);
  for (const which of norms) {
    const what = `the norm ${which} of layer ${layer}`;
    compareVectors(await a.norm(layer, which), await b.norm(layer, which), what);
  }
  const heads = spec.qkNorm ? ["query", "key"] as const : [];
  for (const which of heads) {
    const what = `the norm of each ${which} of layer ${layer}`;
    compareVectors(await a.headNorm!(layer, which), await b.headNorm!(layer, which), what);
  }
  return norms.length + heads.length;
}

async function compareLinear(
  source: Source,
  written: Source,
  layer: number,
  name: LinearName,
  writtenFactor: VerifyOptions["writtenFactor"],
): Promise<void> {
  const expected = await ternaryMatrix(source, layer, name);
  const actual = await ternaryMatrix(written, layer, name);
  compareTernary(expected, actual, writtenFactor);
  const { biases, linearNormEps } = source.config.spec;
  if (!biases.includes(name) && linearNormEps === null) return;
  const [a, b] = [expected, actual].map(({ bias, inputNorm }) => ({ bias, inputNorm }));
  if (a.bias !== null) compareVectors(a.bias, b.bias, `the bias of ${expected.what}`);
  if (a.inputNorm !== null) {
    compareVectors(a.inputNorm, b.inputNorm, `the norm of ${expected.what}`);
  }
}

/** @returns The number of their matrices. */
async function compareExperts(
  source: Source,
  written: Source,
  layer: number,
  { writtenFactor, signal }: VerifyOptions,
): Promise<number> {
  const { spec } = source.config;
  const [a, b] = [source.weights.experts!, written.weights.experts!];
  await compareMatrices(a.router(layer), b.router(layer), `the router of layer ${layer}`);
  const names = ["gate", "up", "down"] as const;
  for (let expert = 0; expert < spec.experts!.numExperts; expert++) {
    signal?.throwIfAborted();
    for (const name of names) {
      const what = `${name} of expert ${expert} of layer ${layer}`;
      const [expected, actual] = [
        await a.matrix(layer, expert, name),
        await b.matrix(layer, expert, name),
      ].map((expert) => codedExpert(expert, what));
      compareTernary(expected, actual, writtenFactor);
    }
  }
  return names.length * spec.experts!.numExperts;
}

type Compared = Omit<TernaryMatrix, "bias" | "inputNorm">;

/** Their weights are gone afterwards. */
function compareTernary(
  expected: Compared,
  actual: Compared,
  writtenFactor: VerifyOptions["writtenFactor"],
): void {
  compareCodes(expected, actual);
  compareFactors(expected, actual, writtenFactor);
  freeMatrix(expected);
  freeMatrix(actual);
}

function compareCodes(
  { codes, k, what }: Compared,
  actual: Compared,
): void {
  const at = firstDifference(codes, actual.codes);
  if (at < 0) return;
  const place = `at row ${Math.floor(at / k)}, column ${at % k}`;
  throw differs(what, `has weight ${actual.codes[at] - 1} in place of ${codes[at] - 1} ${place}`);
}

/** Weights that may have another factor than their neighbours. */
const STEP = 32;

/** Factors count where there is a weight that is not zero. */
function compareFactors(
  expected: Compared,
  actual: Compared,
  writtenFactor: VerifyOptions["writtenFactor"],
): void {
  const { n, k, codes, what } = expected;
  const isOne = expected.factors.length === 1 && actual.factors.length === 1;
  for (let row = 0; row < (isOne ? 1 : n); row++) {
    for (let column = 0; column < (isOne ? 1 : k); column += STEP) {
      const [factor, found] = [expected, actual].map((each) => factorOf(each, row, column));
      if (factor === found || (!isOne && isZero(codes, row * k + column, k - column))) continue;
      const wanted = writtenFactor(factor);
      if (wanted === found) continue;
      throw differs(what, `has factor ${found} in place of ${wanted} at row ${row}`);
    }
  }
}

function isZero(codes: Uint8Array, from: number, left: number): boolean {
  return codes.subarray(from, from + Math.min(STEP, left)).every((code) => code === 1);
}

function compareVectors(expected: Float32Array, actual: Float32Array | null, what: string): void {
  const at = expected.findIndex((value, i) => !Object.is(value, actual?.[i]));
  if (at < 0 && expected.length === actual?.length) return;
  throw differs(what, `has ${actual?.[at]} in place of ${expected[at]} at element ${at}`);
}

async function compareMatrices(
  expected: FloatMatrix,
  actual: FloatMatrix,
  what: string,
): Promise<void> {
  const { rows, columns } = expected;
  if (rows !== actual.rows || columns !== actual.columns) throw differs(what, "has another shape");
  const type: FloatType = actual.type;
  for (const { first, count } of rowChunks(rows, columns * FLOAT_BYTES.f32)) {
    const bytes = await expected.readRows(first, count);
    const wanted = convertFloats(bytes, expected.type, type, what);
    const found = await actual.readRows(first, count);
    const at = firstDifference(wanted, found);
    free(bytes, wanted, found);
    if (at < 0) continue;
    const row = first + Math.floor(at / (columns * FLOAT_BYTES[type]));
    throw differs(what, `is not the same in row ${row}`);
  }
}
