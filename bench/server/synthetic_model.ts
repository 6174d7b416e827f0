/**
 * Checkpoints with made-up weights: a model folder that the server opens as any other, of a
 * published model's shape, where nobody has to fetch it. The texts mean nothing.
 */
import fs from "node:fs";
import path from "node:path";
import { LINEAR_NAMES, linearShape, type ModelSpec } from "../../codegen/model_spec.ts";
import { randomOf } from "../../codegen/random.ts";
import { cacheDirectory } from "../../kernels/cache.ts";
import { LINEAR_PATHS } from "../../runtime/tensor_names.ts";
import { embeddedModelFolder } from "../../runtime/embedded.ts";
import { type RepeatedTensor, writeTensors } from "./tensor_writer.ts";

/** Raise it where the files' content changes. */
const VERSION = 1;
const POSITIONS = 2048;
/** Primes, so that no two rows of a matrix are alike. */
const PATTERN_CODES = 1_048_573;
const PATTERN_FLOATS = 1_048_573;
/**
 * Factor of a made-up weight. Layers add far more than the embedding to the residual stream then;
 * with tied matrices a token would follow itself forever otherwise, and drafts would all come true.
 */
const SCALE = 0.1;
/**
 * Spread of the embedding, which is the head's too. Logits then spread by sqrt(hiddenSize) times as
 * much, some 6: a temperature of 1 picks one of tens of tokens, and texts go in no circles.
 */
const EMBEDDING_SPREAD = 0.15;

/**
 * A folder with a checkpoint of this shape, written where it is not there yet.
 *
 * @throws {RangeError} If the shape has what checkpoints of bitnet or llama have not.
 */
export async function syntheticModel(
  name: string,
  spec: ModelSpec,
  parent = cacheDirectory("synthetic"),
): Promise<string> {
  const folder = path.join(parent, `${name}-v${VERSION}`);
  if (fs.existsSync(folder)) return folder;
  const temporary = fs.mkdtempSync(path.join(parent, "temporary-"));
  try {
    await writeSyntheticModel(spec, temporary);
    fs.renameSync(temporary, folder);
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
  return folder;
}

async function writeSyntheticModel(spec: ModelSpec, folder: string): Promise<void> {
  checkPlain(spec);
  const tokenizer = tokenizerOf(spec.vocabSize);
  const { bosId, eosId } = tokenizer;
  const write = (file: string, value: unknown) =>
    fs.writeFileSync(path.join(folder, file), JSON.stringify(value));
  write("config.json", configOf(spec, { bosId, eosId }));
  write("generation_config.json", {
    bos_token_id: bosId,
    eos_token_id: eosId,
    do_sample: true,
    temperature: 1,
    top_k: 40,
  });
  write("tokenizer.json", tokenizer.json);
  fs.copyFileSync(storyFile("tokenizer_config.json"), path.join(folder, "tokenizer_config.json"));
  await writeTensors(path.join(folder, "model.safetensors"), tensorsOf(spec));
}

function checkPlain(spec: ModelSpec): void {
  const special = ["experts", "qkNorm", "sliding", "rotaryDim", "rowScales"] as const;
  const unable = [
    ...special.filter((field) => spec[field] !== undefined),
    ...(spec.linearNormEps === null ? [] : ["linearNormEps"]),
  ];
  if (unable.length === 0) return;
  throw new RangeError(
    `Cannot write a checkpoint of this shape as no file format has its ${unable.join(", ")}` +
      ": give a dense model's shape",
  );
}

function configOf(spec: ModelSpec, { bosId, eosId }: { bosId: number; eosId: number }) {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    quantization_config: {
      quant_method: "bitnet",
      linear_class: "autobitlinear",
      quantization_mode: "offline",
    },
    hidden_size: spec.hiddenSize,
    intermediate_size: spec.intermediateSize,
    num_hidden_layers: spec.numHiddenLayers,
    num_attention_heads: spec.numAttentionHeads,
    num_key_value_heads: spec.numKeyValueHeads,
    head_dim: spec.headDim,
    vocab_size: spec.vocabSize,
    hidden_act: spec.hiddenAct,
    rms_norm_eps: spec.rmsNormEps,
    rope_theta: 10000,
    max_position_embeddings: POSITIONS,
    tie_word_embeddings: spec.tieWordEmbeddings,
    bos_token_id: bosId,
    eos_token_id: eosId,
    torch_dtype: "bfloat16",
  };
}

// ---------------------------------------------------------------- tokenizer

function storyFile(name: string): string {
  return path.join(embeddedModelFolder(), name);
}

/** The story model's tokenizer, and words that nobody writes for the ids that it has not. */
function tokenizerOf(vocabSize: number) {
  const json = JSON.parse(fs.readFileSync(storyFile("tokenizer.json"), "utf8"));
  const [bos, eos] = json.added_tokens as { id: number }[];
  if (vocabSize <= eos.id) {
    throw new RangeError(
      `Cannot write a checkpoint of this shape as its vocabulary must have the story model's ` +
        `tokens: current value is ${vocabSize}, give one of more than ${eos.id}`,
    );
  }
  for (let id = eos.id + 1; id < vocabSize; id++) json.model.vocab[fillerWord(id)] = id;
  return { json, bosId: bos.id, eosId: eos.id };
}

/** " q" and letters: the number in base 16. No two ids have the same. */
function fillerWord(id: number): string {
  const digits = [...id.toString(16)].map((digit) => "aeioubdfghklmnpr"[parseInt(digit, 16)]);
  return `\u0120q${digits.join("")}`;
}

// ---------------------------------------------------------------- weights

const NORM_PATHS = { input: "input_layernorm", postAttention: "post_attention_layernorm" };

function tensorsOf(spec: ModelSpec): RepeatedTensor[] {
  const random = randomOf(20260102);
  const codes = Uint8Array.from({ length: PATTERN_CODES }, () => fourCodes(random));
  const matrix = bf16(PATTERN_FLOATS, () => EMBEDDING_SPREAD * nearlyNormal(random));
  const shape = [spec.vocabSize, spec.hiddenSize];
  return [
    { name: "model.embed_tokens.weight", dtype: "BF16", shape, pattern: matrix },
    ...(spec.tieWordEmbeddings
      ? []
      : [{ name: "lm_head.weight", dtype: "BF16" as const, shape, pattern: matrix }]),
    ones("model.norm", spec.hiddenSize),
    ...Array.from({ length: spec.numHiddenLayers }, (_, layer) => layerOf(spec, layer, codes))
      .flat(),
  ];
}

function layerOf(spec: ModelSpec, layer: number, codes: Uint8Array): RepeatedTensor[] {
  const at = `model.layers.${layer}`;
  const norms = Object.values(NORM_PATHS).map((name) => ones(`${at}.${name}`, spec.hiddenSize));
  if (spec.subNorms) {
    norms.push(ones(`${at}.self_attn.attn_sub_norm`, linearShape(spec, "o").k));
    norms.push(ones(`${at}.mlp.ffn_sub_norm`, spec.intermediateSize));
  }
  return [...norms, ...LINEAR_NAMES.flatMap((name) => linearOf(spec, at, name, codes))];
}

function linearOf(
  spec: ModelSpec,
  at: string,
  name: (typeof LINEAR_NAMES)[number],
  codes: Uint8Array,
): RepeatedTensor[] {
  const { n, k } = linearShape(spec, name);
  const tensor = `${at}.${LINEAR_PATHS[name]}.weight`;
  return [
    { name: tensor, dtype: "U8", shape: [Math.ceil(n / 4), k], pattern: codes },
    { name: `${tensor}_scale`, dtype: "BF16", shape: [1], pattern: bf16(1, () => SCALE) },
  ];
}

function ones(path: string, size: number): RepeatedTensor {
  return { name: `${path}.weight`, dtype: "BF16", shape: [size], pattern: bf16(1, () => 1) };
}

/** Four codes, 0 to 2 of two bits each: those of four output rows. */
function fourCodes(random: () => number): number {
  const code = () => Math.floor(random() * 3);
  return code() | code() << 2 | code() << 4 | code() << 6;
}

/** As the rows of a trained head are: twelve uniform numbers. */
function nearlyNormal(random: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random();
  return sum;
}

function bf16(count: number, value: () => number): Uint8Array {
  const words = new Uint32Array(Float32Array.from({ length: count }, value).buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}
