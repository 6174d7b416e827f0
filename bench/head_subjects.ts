/** The models whose hidden states `head_misses.ts` looks at, and what they are given to read. */
import fs from "node:fs";
import path from "node:path";
import { ZERO_CODE } from "../codegen/layouts/layout.ts";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { randomOf } from "../codegen/random.ts";
import type { RopeTables } from "../codegen/step/reference.ts";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { readModelConfig } from "../runtime/config.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { loadModel } from "../runtime/mod.ts";
import { ropeTables } from "../runtime/rope.ts";
import { loadTokenizer } from "../runtime/tokenizer.ts";
import type { FloatMatrix, WeightSource } from "../runtime/weights.ts";
import { fixturePath } from "../tests/fixtures.ts";
import { PLAIN_MODEL } from "../tests/golden_models.ts";
import { randomSource, someRope } from "../tests/random_model.ts";

/** Positions of a sequence. */
export const CONTEXT = 256;

/** A model with a sketch of its head, whatever its size. */
export interface Subject {
  name: string;
  spec: ModelSpec;
  rope: RopeTables;
  weights: WeightSource;
  /** Tokens to read, `count` at least; of an adversarial subject there are ADVERSARIAL_STATES. */
  read(count: number): Promise<number[]>;
  [Symbol.asyncDispose](): PromiseLike<void>;
}

export type Opener = () => Promise<Subject>;

/** The embedded model on real text, or on its own where the conformance data's corpus is not there. */
export function storySubject(): Promise<Subject> {
  const folder = embeddedModelFolder();
  const corpus = fixturePath("corpus");
  return fs.existsSync(corpus)
    ? checkpointSubject("story model, corpus", folder, (count) => corpusIds(corpus, count))
    : checkpointSubject("story model, its own text", folder, ownIds);
}

/** Each golden model on random tokens; none where the conformance data is not there. */
export function goldenSubjects(): Opener[] {
  const folder = fixturePath("models");
  if (!fs.existsSync(folder)) return [];
  const names = fs.readdirSync(folder).sort().filter((name) => name !== PLAIN_MODEL);
  // Some models are twins: each has random tokens of its own.
  return names.map((name, seed) => () =>
    checkpointSubject(
      name,
      path.join(folder, name),
      (count, { vocabSize }) => randomIds(count, vocabSize, seed),
    )
  );
}

async function checkpointSubject(
  name: string,
  folder: string,
  read: (count: number, spec: ModelSpec) => Promise<number[]> | number[],
): Promise<Subject> {
  const checkpoint = await openCheckpoint(folder);
  const config = await readModelConfig(checkpoint);
  const spec = { ...config.spec, headSketch: true };
  return {
    name,
    spec,
    rope: ropeTables(config, CONTEXT),
    weights: openWeights(config, checkpoint),
    read: async (count) => await read(count, spec),
    [Symbol.asyncDispose]: () => checkpoint[Symbol.asyncDispose](),
  };
}

function randomIds(count: number, vocabSize: number, seed: number): number[] {
  const random = randomOf(seed);
  return Array.from({ length: count }, () => Math.floor(random() * vocabSize));
}

/** Letters that are encoded at a time. */
const SLICE = 1 << 16;

async function corpusIds(folder: string, count: number): Promise<number[]> {
  const tokenizer = await loadTokenizer(embeddedModelFolder());
  const files = fs.readdirSync(folder).sort().filter((name) => name.endsWith(".txt"));
  const ids: number[] = [];
  for (const file of files) {
    const text = fs.readFileSync(path.join(folder, file), "utf8");
    for (let at = 0; at < text.length && ids.length < count; at += SLICE) {
      for (const id of tokenizer.encode(text.slice(at, at + SLICE))) ids.push(id);
    }
  }
  return repeated(ids, count);
}

async function ownIds(count: number): Promise<number[]> {
  await using model = await loadModel();
  const ids: number[] = [];
  for (let seed = 0; ids.length < count; seed++) {
    const options = { temperature: 1, seed, maxTokens: CONTEXT };
    const { tokenIds } = await model.generate("Once upon a time", options);
    for (const id of tokenIds) ids.push(id);
  }
  return ids;
}

function repeated(ids: readonly number[], count: number): number[] {
  return Array.from({ length: Math.max(count, ids.length) }, (_, i) => ids[i % ids.length]);
}

// ---------------------------------------------------------------- adversarial heads and states

/** Its layers add nothing, so that a token's hidden state is its row of the embedding. */
const BARE: ModelSpec = {
  hiddenSize: 256,
  intermediateSize: 32,
  numHiddenLayers: 1,
  numAttentionHeads: 1,
  numKeyValueHeads: 1,
  headDim: 32,
  vocabSize: 2048,
  rmsNormEps: 1e-5,
  hiddenAct: "relu2",
  subNorms: false,
  linearNormEps: null,
  biases: [],
  tieWordEmbeddings: false,
  embeddingType: "f32",
  headType: "f32",
  headSketch: true,
};

/** Of each adversarial subject: there is one a token. */
export const ADVERSARIAL_STATES = BARE.vocabSize;

type MakeRow = (random: () => number, index: number) => Float32Array;

/** Rows that are hard to tell apart, or that 9 levels show badly. */
const HEADS: Record<string, (random: () => number) => MakeRow> = {
  "heavy tails": () => (random) => normals(random).map((value) => value ** 3),
  "ties": (random) => {
    const few = Array.from({ length: 64 }, () => normals(random));
    return (_, index) => few[index % few.length];
  },
  "near ties": (random) => {
    const few = Array.from({ length: 64 }, () => normals(random));
    return (_, index) => few[index % few.length].map((value) => value * (1 + 1e-3 * random()));
  },
  "an outlier a row": () => (random) => {
    const row = normals(random);
    row[Math.floor(random() * row.length)] *= 300;
    return row;
  },
};

/** States that point at rows, or that int8 shows badly. They don't know the dither: that is the proof's premise. */
const STATES: readonly ((random: () => number, row: Float32Array) => Float32Array)[] = [
  (_, row) => row,
  (_, row) => row.map((value) => -value),
  (_, row) => row.map(Math.sign),
  (random) => normals(random),
  (random) => normals(random).map((value) => random() < 0.95 ? 0 : value),
  (random) => {
    const state = normals(random);
    state[Math.floor(random() * state.length)] *= 300;
    return state;
  },
];

/** Heads and hidden states that nobody trained. */
export const ADVERSARIAL_SUBJECTS: readonly Opener[] = Object.entries(HEADS).map(
  ([name, head], seed) => () => {
    const random = randomOf(seed);
    const makeRow = head(random);
    const rows = Array.from({ length: BARE.vocabSize }, (_, i) => makeRow(random, i));
    const states = rows.map((row, i) => STATES[i % STATES.length](random, row));
    return Promise.resolve({
      name: `adversarial, ${name}`,
      spec: BARE,
      rope: someRope(BARE, CONTEXT),
      weights: bareSource(random, states, rows),
      read: (count) => Promise.resolve(Array.from({ length: count }, (_, i) => i)),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  },
);

/** Sums of 12 uniform values: near enough. */
function normals(random: () => number): Float32Array {
  return Float32Array.from({ length: BARE.hiddenSize }, () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += random();
    return sum;
  });
}

function bareSource(
  random: () => number,
  states: readonly Float32Array[],
  rows: readonly Float32Array[],
): WeightSource {
  const source = randomSource(BARE, random);
  return {
    ...source,
    async linear(layer, name) {
      const weights = await source.linear(layer, name);
      weights.matrix.bytes.fill(ZERO_CODE);
      return weights;
    },
    finalNorm: () => Promise.resolve(new Float32Array(BARE.hiddenSize).fill(1)),
    embedding: () => floatMatrix(states),
    head: () => floatMatrix(rows),
  };
}

function floatMatrix(rows: readonly Float32Array[]): FloatMatrix {
  const bytes = new Uint8Array(Float32Array.from(rows.flatMap((row) => [...row])).buffer);
  const rowBytes = bytes.length / rows.length;
  return {
    type: "f32",
    rows: rows.length,
    columns: rows[0].length,
    readRows: (first, count) =>
      Promise.resolve(bytes.slice(first * rowBytes, (first + count) * rowBytes)),
  };
}
