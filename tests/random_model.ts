import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import {
  type Groups,
  type LinearName,
  linearShape,
  type ModelSpec,
  rotaryDim,
  type Shape,
} from "../codegen/model_spec.ts";
import { groupCount } from "../codegen/ternary_linear/groups.ts";
import { planOf } from "../codegen/plan.ts";
import type { RopeTables } from "../codegen/step/reference.ts";
import { randomOf } from "../codegen/random.ts";
import { joinedTables } from "../runtime/rope.ts";
import { packModel } from "../runtime/pack.ts";
import { referencePacker } from "../runtime/ternary_packer.ts";
import type {
  ExpertMatrix,
  FloatMatrix,
  TernaryWeights,
  WeightSource,
} from "../runtime/weights.ts";

export function randomCodes(random: () => number, count: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, () => Math.floor(random() * 3));
}

function randomFloats(random: () => number, count: number, size = 1): Float32Array {
  return Float32Array.from({ length: count }, () => (random() - 0.5) * 2 * size);
}

/** Norm weights around one, as trained models have. */
function randomNorm(random: () => number, count: number): Float32Array {
  return Float32Array.from({ length: count }, () => 0.5 + random());
}

/** bf16 or f32 bytes of a random matrix. */
function randomMatrix(
  random: () => number,
  [rows, columns]: readonly [rows: number, columns: number],
  type: "bf16" | "f16" | "f32",
): FloatMatrix {
  const bytes = encode(randomFloats(random, rows * columns), type);
  const rowBytes = bytes.length / rows;
  return {
    type,
    rows,
    columns,
    readRows: (first, count) =>
      Promise.resolve(bytes.subarray(first * rowBytes, (first + count) * rowBytes)),
  };
}

function encode(values: Float32Array, type: "bf16" | "f16" | "f32"): Uint8Array<ArrayBuffer> {
  if (type === "f32") return new Uint8Array(values.buffer as ArrayBuffer);
  if (type === "f16") return new Uint8Array(Float16Array.from(values).buffer);
  const words = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

function randomScale(random: () => number): number {
  return Math.fround(0.02 + 0.05 * random());
}

function randomExpert(spec: ModelSpec, random: () => number, name: LinearName) {
  const shape = linearShape(spec, name);
  const bytes = randomCodes(random, shape.n * shape.k);
  const rowScales = Float32Array.from({ length: shape.n }, () => randomScale(random));
  return { matrix: { kind: "codes", bytes, ...shape }, rowScales } satisfies ExpertMatrix;
}

function randomLinear(spec: ModelSpec, random: () => number, name: LinearName): TernaryWeights {
  const { n, k } = linearShape(spec, name);
  const { matrix, rowScales } = randomExpert(spec, random, name);
  const { groups } = spec;
  return {
    matrix,
    what: name,
    scale: rowScales[0],
    ...(spec.rowScales ? { rowScales } : {}),
    ...(groups?.weightScales ? { groupScales: randomFactors(groups, { n, k }, random) } : {}),
    bias: spec.biases.includes(name) ? randomFloats(random, n, 0.1) : null,
    inputNorm: spec.linearNormEps === null ? null : randomNorm(random, k),
  };
}

/** Rows of a ternary head or embedding. */
function randomRows(spec: ModelSpec, random: () => number, n: number): TernaryWeights {
  const k = spec.hiddenSize;
  return {
    matrix: { kind: "codes", bytes: randomCodes(random, n * k), n, k },
    what: "some rows",
    scale: null,
    groupScales: randomFactors(spec.groups!, { n, k }, random),
    bias: null,
    inputNorm: null,
  };
}

/** Factors of groups that all types hold, some of them 0. */
function randomFactors(groups: Groups, { n, k }: Shape, random: () => number): Float32Array {
  return Float32Array.from({ length: n * groupCount(groups, k) }, () => {
    return random() < 0.05 ? 0 : (128 + Math.floor(128 * random())) * 2 ** -12;
  });
}

function once<T extends object>(make: () => T): () => T {
  let made: T | undefined;
  return () => made ??= make();
}

/** Random weights of a shape. */
export function randomSource(spec: ModelSpec, random: () => number): WeightSource {
  const matrix = [spec.vocabSize, spec.hiddenSize] as const;
  // Packing reads the head twice where it has a sketch.
  const embedding = once(() => randomMatrix(random, matrix, spec.embeddingType));
  const head = once(() => randomMatrix(random, matrix, spec.headType));
  return {
    ternaryRows: (_which, _first, count) => Promise.resolve(randomRows(spec, random, count)),
    linear: (_layer, name) => Promise.resolve(randomLinear(spec, random, name)),
    norm: (_layer, name) => {
      const queries = spec.numAttentionHeads * spec.headDim;
      const size = { attnSub: queries, ffnSub: spec.intermediateSize }[name as string];
      return Promise.resolve(randomNorm(random, size ?? spec.hiddenSize));
    },
    finalNorm: () => Promise.resolve(randomNorm(random, spec.hiddenSize)),
    embedding,
    head,
    headNorm: () => Promise.resolve(randomNorm(random, spec.headDim)),
    experts: {
      matrix: (_layer, _expert, name) => Promise.resolve(randomExpert(spec, random, name)),
      router: () =>
        randomMatrix(random, [spec.experts!.numExperts, spec.hiddenSize], spec.experts!.routerType),
    },
  };
}

/** The packed data of a random model, the same weights in any layout. */
export async function randomPacked(
  spec: ModelSpec,
  seed: number,
  layout: TernaryLayout = ROWS32,
): Promise<Uint8Array<ArrayBuffer>> {
  const data = new Uint8Array(planOf(spec, layout).totalBytes);
  const sink = (bytes: Uint8Array, offset: number) => data.set(bytes, offset);
  const packer = referencePacker(layout);
  await packModel(spec, randomSource(spec, randomOf(seed)), sink, { packer });
  return data;
}

/** Some angles; any will do for comparing executors. */
export function someRope(spec: ModelSpec, positions: number): RopeTables & { both: Float32Array } {
  const half = rotaryDim(spec) / 2;
  const of = (base: number) => {
    const angle = (i: number) => Math.floor(i / half) / base ** (i % half / half);
    const values = (turn: (angle: number) => number) =>
      Float32Array.from({ length: positions * half }, (_, i) => turn(angle(i)));
    return { cos: values(Math.cos), sin: values(Math.sin) };
  };
  const tables = { ...of(100), ...(spec.sliding?.localRope ? { local: of(7) } : {}) };
  return { ...tables, both: joinedTables(tables) };
}
