/**
 * Which architecture of GGUF's readers has a model's graph. What none would run as it is is refused.
 *
 * Sources: llama.cpp's models (src/models/*.cpp) for what each graph has; microsoft/BitNet's for
 * bitnet-b1.58 and for norms in linears.
 */
import {
  type HiddenAct,
  LINEAR_NAMES,
  type LinearName,
  linearShape,
  type ModelSpec,
  rotaryDim,
} from "../../codegen/model_spec.ts";
import type { ModelConfig } from "../config.ts";
import { UnsupportedModelError } from "../errors.ts";
import type { ModelType } from "../models/architecture.ts";
import type { NormName } from "../weights.ts";
import type { TernaryType } from "./formats.ts";
import { blockWeights } from "./ggml_blocks.ts";

/** Names of architectures that are written. */
export type ArchitectureName =
  | "llama"
  | "bitnet"
  | "bitnet-b1.58"
  | "qwen3"
  | "gemma3"
  | "minicpm"
  | "maple";

export interface GgufArchitecture {
  name: ArchitectureName;
  hiddenAct: HiddenAct;
  /** What its graph has that a llama's has not. */
  parts: readonly Part[];
  /** What the norms of a layer are called. */
  norms: Readonly<Partial<Record<NormName, string>>>;
}

type Part = keyof typeof PARTS;

/** Parts of graphs: whether a model has them, and what they are for people. */
const PARTS = {
  subNorms: [(spec) => spec.subNorms, "norms within its blocks"],
  headNorms: [(spec) => spec.qkNorm === true, "norms of queries and keys"],
  linearNorms: [(spec) => spec.linearNormEps !== null, "norms inside its linears"],
  postNorms: [(spec) => spec.postNorms === true, "norms behind attention and MLP"],
  sliding: [(spec) => spec.sliding !== undefined, "sliding attention"],
  experts: [(spec) => spec.experts !== undefined, "experts"],
  partialRope: [(spec) => rotaryDim(spec) !== spec.headDim, "partial RoPE"],
  embeddingScale: [(spec) => (spec.embeddingScale ?? 1) !== 1, "a factor of its embeddings"],
  residualScale: [(spec) => (spec.residualScale ?? 1) !== 1, "a factor of its residuals"],
} satisfies Record<string, [has: (spec: ModelSpec) => boolean, what: string]>;

/** What llama.cpp calls the linears and the norms of a layer. */
export const LINEAR_TENSORS: Readonly<Record<LinearName, string>> = {
  q: "attn_q",
  k: "attn_k",
  v: "attn_v",
  o: "attn_output",
  gate: "ffn_gate",
  up: "ffn_up",
  down: "ffn_down",
};
const NORMS: GgufArchitecture["norms"] = {
  input: "attn_norm",
  postAttention: "ffn_norm",
  attnSub: "attn_sub_norm",
  ffnSub: "ffn_sub_norm",
};

function architecture(
  name: ArchitectureName,
  parts: readonly Part[],
  others: Partial<GgufArchitecture> = {},
): GgufArchitecture {
  return { name, hiddenAct: "silu", parts, norms: NORMS, ...others };
}

const BITNET = architecture("bitnet", ["subNorms"]);
const BITNET_RELU2 = architecture("bitnet-b1.58", ["subNorms"], { hiddenAct: "relu2" });
const LLAMA = architecture("llama", []);

const ARCHITECTURES: Readonly<Record<ModelType, GgufArchitecture>> = {
  bitnet: LLAMA,
  llama: LLAMA,
  qwen3: architecture("qwen3", ["headNorms", "linearNorms"]),
  gemma3: architecture("gemma3", [
    "headNorms",
    "linearNorms",
    "postNorms",
    "sliding",
    "embeddingScale",
  ], {
    hiddenAct: "geluTanh",
    norms: { ...NORMS, attentionOut: "post_attention_norm", mlpOut: "post_ffw_norm" },
  }),
  minicpm: architecture("minicpm", ["embeddingScale", "residualScale"]),
  maple: architecture("maple", ["headNorms", "sliding", "experts", "partialRope"]),
};

export const cannot = (reason: string) =>
  new UnsupportedModelError(`Cannot write a GGUF file: ${reason}`);

/** llama.cpp has no graph for sub-norms with squared ReLU, nor for norms in linears: bitnet.cpp has. */
export function defaultType(spec: ModelSpec): TernaryType {
  if (spec.linearNormEps !== null || (spec.subNorms && spec.hiddenAct === "relu2")) return "i2_s";
  const size = groupSize(spec);
  return size !== null && size % blockWeights("tq2_0") !== 0 ? "q2_0" : "tq2_0";
}

/** Features that have a factor of weights of their own; null where rows or matrices have. */
function groupSize({ groups }: ModelSpec): number | null {
  return groups?.weightScales ? groups.size : null;
}

/** @throws {UnsupportedModelError} If no reader of such files would run the model as it is. */
export function ggufArchitecture(
  { spec, modelType }: ModelConfig,
  type: TernaryType,
): GgufArchitecture {
  const found = spec.subNorms
    ? spec.hiddenAct === "relu2" ? BITNET_RELU2 : BITNET
    : ARCHITECTURES[modelType];
  refuseParts(spec, found);
  refuseTypes(spec, found, type);
  refuseShapes(spec, type);
  return found;
}

function refuseParts(spec: ModelSpec, { name, hiddenAct, parts }: GgufArchitecture): void {
  const foreign = Object.entries(PARTS)
    .filter(([part, [has]]) => has(spec) && !parts.some((own) => own === part))
    .map(([, [, what]]) => what);
  if (spec.subNorms && spec.biases.length > 0) foreign.push("sub-norms and biases together");
  if (name === "bitnet" && !spec.tieWordEmbeddings) foreign.push("a head of its own");
  if (spec.hiddenAct !== hiddenAct) foreign.push(`activation ${spec.hiddenAct}`);
  const scale = name === "gemma3" ? Math.sqrt(spec.hiddenSize) : spec.embeddingScale;
  if (spec.embeddingScale !== scale) foreign.push(`embeddings scaled by ${spec.embeddingScale}`);
  const hasOtherEps = spec.linearNormEps !== null && spec.linearNormEps !== spec.rmsNormEps;
  if (hasOtherEps && parts.includes("linearNorms")) {
    foreign.push("another epsilon of the norms inside its linears");
  }
  if (foreign.length === 0) return;
  throw cannot(
    `this model has ${foreign.join(", ")}, which readers' arch ${name} has not: use --to packed`,
  );
}

function refuseTypes(spec: ModelSpec, { name }: GgufArchitecture, type: TernaryType): void {
  if (type === "i2_s") return;
  if (name === "bitnet-b1.58") {
    throw cannot(
      "llama.cpp, which reads the other types, runs sub-norms with SiLU only and this model has " +
        "squared ReLU: use --type i2_s, which bitnet.cpp and Trilith read",
    );
  }
  if (spec.linearNormEps !== null) {
    throw cannot(
      "llama.cpp, which reads the other types, has no norms inside linears: use --type i2_s, which " +
        "bitnet.cpp and Trilith read",
    );
  }
}

function refuseShapes(spec: ModelSpec, type: TernaryType): void {
  const size = groupSize(spec);
  if (type === "i2_s") {
    if (size !== null || spec.rowScales) {
      const share = size === null ? "a row" : `each ${size} weights`;
      throw cannot(
        `this model has a factor for ${share}, I2_S one a matrix: use --type ${defaultType(spec)}`,
      );
    }
    refuseOddRows(spec);
  } else if (size !== null && size % blockWeights(type) !== 0) {
    const finest = blockWeights("q2_0");
    throw cannot(
      `this model has a factor for each ${size} weights, ${type.toUpperCase()} one for each ` +
        `${blockWeights(type)}: use ${size % finest === 0 ? "--type q2_0" : "--to packed"}`,
    );
  }
}

function refuseOddRows(spec: ModelSpec): void {
  const block = blockWeights("i2_s");
  const odd = LINEAR_NAMES.find((name) => linearShape(spec, name).k % block !== 0);
  if (odd === undefined) return;
  const other = spec.linearNormEps === null && spec.hiddenAct !== "relu2"
    ? "--type tq2_0, which falls back to F16 there"
    : "--to packed";
  throw cannot(
    `rows of I2_S must be a multiple of ${block} long: ${LINEAR_TENSORS[odd]} has ` +
      `${linearShape(spec, odd).k}, use ${other}`,
  );
}
