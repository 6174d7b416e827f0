/**
 * Writes made-up ternary models as GGUF files, so that others' engines can be measured on the same
 * shapes. Numbers mean nothing; every block is valid.
 */
import fs from "node:fs";
import { LINEAR_NAMES, linearShape, type ModelSpec } from "../../codegen/model_spec.ts";
import { randomOf } from "../../codegen/random.ts";
import {
  ALIGNMENT,
  encodeGgufHeader,
  type GgufTensor,
  type GgufValue,
  type PlacedTensor,
  placeTensors,
  TENSOR_TYPES,
  type TensorType,
} from "../../runtime/convert/gguf_file.ts";
import { LINEAR_TENSORS } from "../../runtime/convert/gguf_architectures.ts";

/** Formats in which llama.cpp runs ternary weights: two of its own for them, and the usual 4 bits. */
export const GGUF_FORMATS = ["TQ2_0", "TQ1_0", "Q4_0"] as const;
export type GgufFormat = (typeof GGUF_FORMATS)[number];

/** A tensor type: its number in GGUF, and how one block of weights is made. */
interface BlockType {
  type: TensorType;
  weights: number;
  bytes: number;
  fill(block: Uint8Array, random: () => number): void;
}

/** 0.02 as f16: a usual weight scale. */
const SCALE = [0x1f, 0x25];

const trit = (random: () => number) => Math.floor(random() * 3);

/** Five trits of 1, 3, 9, 27, 81 as a fraction of 256, as TQ1_0 keeps them. */
function tritByte(random: () => number, trits: number): number {
  let value = 0;
  for (let i = 0; i < trits; i++) value = value * 3 + trit(random);
  return Math.ceil(value * 3 ** (5 - trits) * 256 / 243);
}

const BLOCKS: Record<GgufFormat | "F32" | "Q6_K", BlockType> = {
  F32: {
    type: "F32",
    weights: 1,
    bytes: 4,
    fill: (block) => new DataView(block.buffer, block.byteOffset).setFloat32(0, 1, true),
  },
  TQ2_0: {
    type: "TQ2_0",
    weights: 256,
    bytes: 66,
    fill(block, random) {
      for (let i = 0; i < 64; i++) {
        block[i] = trit(random) | trit(random) << 2 | trit(random) << 4 | trit(random) << 6;
      }
      block.set(SCALE, 64);
    },
  },
  TQ1_0: {
    type: "TQ1_0",
    weights: 256,
    bytes: 54,
    fill(block, random) {
      for (let i = 0; i < 52; i++) block[i] = tritByte(random, i < 48 ? 5 : 4);
      block.set(SCALE, 52);
    },
  },
  Q4_0: {
    type: "Q4_0",
    weights: 32,
    bytes: 18,
    fill(block, random) {
      block.set(SCALE);
      // Nibbles 7, 8, 9 are -1, 0, 1 times the scale.
      for (let i = 2; i < 18; i++) block[i] = (7 + trit(random)) | (7 + trit(random)) << 4;
    },
  },
  Q6_K: {
    type: "Q6_K",
    weights: 256,
    bytes: 210,
    fill(block, random) {
      for (let i = 0; i < 208; i++) block[i] = Math.floor(random() * 256);
      block.set(SCALE, 208);
    },
  },
};

type Tensor = GgufTensor & { block: BlockType };

/**
 * Writes a model of this shape. The head is Q6_K in every format, as llama.cpp's own quantiser makes
 * it; the architecture is "bitnet" (sub-norms, tied head) or "llama".
 *
 * @returns Bytes of the file, and of the weights that one decoded token reads.
 * @throws {RangeError} If a matrix does not divide into the format's blocks.
 */
export function writeGguf(
  path: string,
  spec: ModelSpec,
  format: GgufFormat,
): { fileBytes: number; bytesPerToken: number } {
  const tensors = placeTensors(tensorsOf(spec, format));
  const header = encodeGgufHeader(valuesOf(spec), tensors);
  const file = fs.openSync(path, "w");
  try {
    fs.writeSync(file, header);
    const patterns = new Map<BlockType, Uint8Array>();
    for (const tensor of tensors) writeTensor(file, header.length, tensor, patterns);
  } finally {
    fs.closeSync(file);
  }
  const last = tensors[tensors.length - 1];
  return {
    fileBytes: header.length + last.offset + last.bytes,
    bytesPerToken: tensors.filter(({ name }) => isReadByEachToken(spec, name))
      .reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** All but an embedding of which a token reads one row. */
function isReadByEachToken(spec: ModelSpec, name: string): boolean {
  return name !== "token_embd.weight" || spec.tieWordEmbeddings;
}

function tensorsOf(spec: ModelSpec, format: GgufFormat): Tensor[] {
  const { hiddenSize: hidden, vocabSize } = spec;
  const tensors: Tensor[] = [];
  const add = (name: string, dims: readonly number[], block: BlockType) => {
    tensors.push({ name, dims, type: block.type, block, bytes: bytesOf(name, dims, block) });
  };
  add("token_embd.weight", [hidden, vocabSize], BLOCKS.Q6_K);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const [name, features] of normsOf(spec)) {
      add(`blk.${layer}.${name}.weight`, [features], BLOCKS.F32);
    }
    for (const linear of LINEAR_NAMES) {
      const { n, k } = linearShape(spec, linear);
      add(`blk.${layer}.${LINEAR_TENSORS[linear]}.weight`, [k, n], BLOCKS[format]);
    }
  }
  add("output_norm.weight", [hidden], BLOCKS.F32);
  if (!spec.tieWordEmbeddings) add("output.weight", [hidden, vocabSize], BLOCKS.Q6_K);
  return tensors;
}

function normsOf(spec: ModelSpec): [name: string, features: number][] {
  const subNorms: [string, number][] = [
    ["attn_sub_norm", spec.numAttentionHeads * spec.headDim],
    ["ffn_sub_norm", spec.intermediateSize],
  ];
  return [
    ["attn_norm", spec.hiddenSize],
    ["ffn_norm", spec.hiddenSize],
    ...(spec.subNorms ? subNorms : []),
  ];
}

function bytesOf(name: string, dims: readonly number[], { weights, bytes }: BlockType): number {
  const count = dims.reduce((product, dim) => product * dim, 1);
  if (dims[0] % weights === 0) return count / weights * bytes;
  throw new RangeError(
    `Cannot write ${name} as its rows must divide into blocks of ${weights} weights` +
      `: current value is ${dims[0]}, use a shape such as bitnet-2b-4t`,
  );
}

// ---------------------------------------------------------------- keys

function valuesOf(spec: ModelSpec): GgufValue[] {
  const arch = spec.subNorms ? "bitnet" : "llama";
  const numbers = {
    vocab_size: spec.vocabSize,
    context_length: 4096,
    embedding_length: spec.hiddenSize,
    block_count: spec.numHiddenLayers,
    feed_forward_length: spec.intermediateSize,
    "rope.dimension_count": spec.headDim,
    "attention.head_count": spec.numAttentionHeads,
    "attention.head_count_kv": spec.numKeyValueHeads,
    "attention.key_length": spec.headDim,
    "attention.value_length": spec.headDim,
  };
  return [
    ["general.architecture", "string", arch],
    ["general.name", "string", "made-up ternary weights"],
    ["general.quantization_version", "uint32", 2],
    ["general.alignment", "uint32", ALIGNMENT],
    ...tokenizerOf(spec),
    ...Object.entries(numbers).map((
      [key, value],
    ): GgufValue => [`${arch}.${key}`, "uint32", value]),
    [`${arch}.attention.layer_norm_rms_epsilon`, "float32", spec.rmsNormEps],
    [`${arch}.rope.freq_base`, "float32", 10000],
  ];
}

/** llama.cpp does not run without a tokenizer: tokens with names, all of them ordinary. */
function tokenizerOf({ vocabSize }: ModelSpec): GgufValue[] {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `t${id}`);
  return [
    ["tokenizer.ggml.model", "string", "gpt2"],
    ["tokenizer.ggml.pre", "string", "llama-bpe"],
    ["tokenizer.ggml.tokens", "string", tokens],
    ["tokenizer.ggml.token_type", "int32", new Array(vocabSize).fill(1)],
    ["tokenizer.ggml.merges", "string", ["t 1"]],
    ["tokenizer.ggml.bos_token_id", "uint32", 0],
    ["tokenizer.ggml.eos_token_id", "uint32", 1],
  ];
}

// ---------------------------------------------------------------- data

/** Blocks that are made for real; longer tensors repeat them. */
const PATTERN_BLOCKS = 4099;

function writeTensor(
  file: number,
  dataStart: number,
  { block, offset, bytes }: PlacedTensor<Tensor>,
  patterns: Map<BlockType, Uint8Array>,
): void {
  const pattern = patterns.get(block) ?? patternOf(block);
  patterns.set(block, pattern);
  for (let at = 0; at < bytes; at += pattern.length) {
    const part = pattern.subarray(0, bytes - at);
    for (let done = 0; done < part.length;) {
      const position = dataStart + offset + at + done;
      done += fs.writeSync(file, part, done, part.length - done, position);
    }
  }
}

function patternOf(block: BlockType): Uint8Array {
  const random = randomOf(TENSOR_TYPES[block.type] + 1);
  const pattern = new Uint8Array(PATTERN_BLOCKS * block.bytes);
  for (let at = 0; at < pattern.length; at += block.bytes) {
    block.fill(pattern.subarray(at, at + block.bytes), random);
  }
  return pattern;
}
