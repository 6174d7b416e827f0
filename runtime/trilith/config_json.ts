/**
 * What is known of a model, as JSON in a file of its own. Names and numbers in it become generated code,
 * so nothing is believed: each value must be of its kind, and no others may be there.
 */
import { createHash } from "node:crypto";
import {
  checkSpec,
  type FloatType,
  LINEAR_NAMES,
  type ModelSpec,
} from "../../codegen/model_spec.ts";
import type { ModelConfig } from "../config.ts";
import { CheckpointError, reasonOf, shown } from "../errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../json.ts";
import { MODEL_TYPES } from "../models/architecture.ts";
import { POOLINGS } from "../pooling.ts";
import { tensorNamesOf } from "../tensor_names.ts";

interface Check {
  (value: Json): boolean;
  /** Names of an object's fields, and of theirs. */
  names?: Json;
}

const count = (most: number): Check => (value) =>
  Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= most;
const number: Check = (value) => typeof value === "number" && Number.isFinite(value);
const flag: Check = (value) => typeof value === "boolean";
const oneOf = (names: readonly string[]): Check => (value) =>
  typeof value === "string" && names.includes(value);
const listOf = (check: Check): Check => (value) => Array.isArray(value) && value.every(check);
const orNull = (check: Check): Check =>
  Object.assign((value: Json) => value === null || check(value), { names: check.names });
const optional = (check: Check): OptionalCheck => ({ optional: check });

interface OptionalCheck {
  optional: Check;
}
type Fields<T> = Readonly<Record<keyof T, Check | OptionalCheck>>;

/** An object with these fields and no others. */
const object = <T>(fields: Fields<T>): Check => {
  const known = Object.entries<Check | OptionalCheck>(fields);
  const check = (value: Json) =>
    isJsonObject(value) && Object.keys(value).every((key) => Object.hasOwn(fields, key)) &&
    known.every(([key, check]) => {
      const field = value[key];
      if (typeof check === "function") return field !== undefined && check(field);
      return field === undefined || check.optional(field);
    });
  const names = known.map(([key, check]) => [
    key,
    (typeof check === "function" ? check : check.optional).names ?? null,
  ]);
  return Object.assign(check, { names });
};

const FLOAT_TYPES: readonly FloatType[] = ["f32", "f16", "bf16"];
const floatType = oneOf(FLOAT_TYPES);
const size = count(10_000_000);
const positions = count(2 ** 31 - 1);

const SPEC: Fields<ModelSpec> = {
  hiddenSize: size,
  intermediateSize: size,
  numHiddenLayers: count(10_000),
  numAttentionHeads: size,
  numKeyValueHeads: size,
  headDim: size,
  vocabSize: size,
  rmsNormEps: number,
  hiddenAct: oneOf(["relu2", "silu", "geluTanh"] satisfies ModelSpec["hiddenAct"][]),
  subNorms: flag,
  linearNormEps: orNull(number),
  biases: listOf(oneOf(LINEAR_NAMES)),
  tieWordEmbeddings: flag,
  embeddingType: floatType,
  headType: floatType,
  headSketch: optional(flag),
  qkNorm: optional(flag),
  rotaryDim: optional(size),
  sliding: optional(object<NonNullable<ModelSpec["sliding"]>>({
    window: positions,
    layers: listOf(flag),
    fullLayersTurn: flag,
    localRope: optional(flag),
  })),
  rowScales: optional(flag),
  groups: optional(object<NonNullable<ModelSpec["groups"]>>({
    size,
    weightScales: flag,
    scaleType: optional(floatType),
  })),
  ternaryHead: optional(flag),
  ternaryEmbedding: optional(flag),
  embeddingScale: optional(number),
  residualScale: optional(number),
  postNorms: optional(flag),
  experts: optional(object<NonNullable<ModelSpec["experts"]>>({
    numExperts: size,
    numExpertsPerTok: size,
    routerType: floatType,
    swigluLimit: orNull(number),
  })),
};

/** A section of numbers and lists of numbers under a type's name, such as rope scaling. */
const section: Check = (value) =>
  isJsonObject(value) &&
  Object.values(value).every((field) =>
    field === null || flag(field) || number(field) || typeof field === "string" ||
    listOf(number)(field)
  );

type Written = Omit<ModelConfig, "tensorNames">;

const CONFIG: Fields<Written> = {
  spec: object(SPEC),
  name: (value) => typeof value === "string",
  modelType: oneOf(MODEL_TYPES),
  task: oneOf(["generate", "embed"]),
  embedding: object<Written["embedding"]>({ pooling: oneOf(POOLINGS), normalize: flag }),
  ropeTheta: number,
  ropeScaling: orNull(section),
  localRope: orNull(object<NonNullable<Written["localRope"]>>({
    ropeTheta: number,
    ropeScaling: orNull(section),
  })),
  folds: object<Written["folds"]>({ normOffset: number, finalNorm: number, queryNorm: number }),
  maxPositionEmbeddings: positions,
  quantization: section,
  bosTokenId: orNull(number),
  eosTokenIds: listOf(number),
  notes: listOf((value) => typeof value === "string"),
};

/** Names of all fields: versions of Trilith that know others have another one. */
export const CONFIG_FIELDS = createHash("sha256").update(JSON.stringify(object(CONFIG).names))
  .digest("hex").slice(0, 16);

/** As JSON; names of tensors stay behind, as the file has none. */
export function configJson({ tensorNames: _, ...config }: ModelConfig): Written {
  return config;
}

/** @throws {CheckpointError} If it is not what `configJson` gives. */
export function parseConfigJson(json: Json, path: string): ModelConfig {
  const wrong = wrongField(json);
  if (wrong !== null) {
    throw new CheckpointError(`Cannot open ${shown(path)}: its ${wrong}: the file is damaged`);
  }
  const config = json as unknown as Written;
  try {
    checkShape(config.spec);
    checkSpec(config.spec);
  } catch (error) {
    throw new CheckpointError(`Cannot open ${shown(path)}: ${reasonOf(error)}`);
  }
  // For messages: there are no tensors by these names.
  return { ...config, tensorNames: tensorNamesOf({}, new Map(), config.spec.tieWordEmbeddings) };
}

function wrongField(json: Json): string | null {
  if (!isJsonObject(json)) return "config is no object";
  const spec = json.spec ?? null;
  const inSpec = isJsonObject(spec) ? wrongOf(spec, SPEC) : "spec";
  const name = inSpec ?? wrongOf(json, CONFIG);
  return name === null
    ? null
    : `${name} is ${shown((json.spec as JsonObject)?.[name] ?? json[name])}`;
}

function wrongOf<T>(json: JsonObject, fields: Fields<T>): string | null {
  const names = new Set([...Object.keys(json), ...Object.keys(fields)]);
  return [...names].find((name) => {
    const check = Object.hasOwn(fields, name) ? fields[name as keyof T] : null;
    if (check === null) return true;
    const value = json[name];
    if (typeof check === "function") return value === undefined || !check(value);
    return value !== undefined && !check.optional(value);
  }) ?? null;
}

/** What generated code takes for granted. */
function checkShape({ numAttentionHeads, numKeyValueHeads, headDim, ...spec }: ModelSpec): void {
  const layers = spec.sliding?.layers.length ?? spec.numHiddenLayers;
  const isSound = numAttentionHeads % numKeyValueHeads === 0 && headDim % 2 === 0 &&
    (spec.rotaryDim ?? headDim) <= headDim && (spec.rotaryDim ?? 0) % 2 === 0 &&
    layers === spec.numHiddenLayers && numAttentionHeads * headDim <= 10_000_000;
  if (!isSound) throw new RangeError("its heads, their features and its layers do not go together");
}
