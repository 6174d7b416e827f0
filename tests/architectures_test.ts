/**
 * Small models of each architecture against public implementations: transformers computed their logits
 * in float32 (`fixtures_made/make.py`), a plain decoder in doubles does the same, and rounds the inputs
 * of linears as the kernels do where models were not trained for it.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel, type LoadOptions } from "../runtime/mod.ts";
import { float64Logits, type Rounding } from "./float64_model.ts";
import {
  MADE,
  madeFolder,
  type MadeModel,
  madeModel,
  publishedLogits,
  TOKENIZER,
} from "./made_models.ts";

/** Of the largest logit: float32 against doubles, where no rounding to int8 is near a tie. 3e-7 were seen. */
const TOLERANCE = 1e-5;

/** Of the largest logit, on average: where a tie was tipped, all that follows is moved a little. */
const TIPPED = 0.002;

/**
 * Of the largest logit, on average: what rounding inputs to int8 by groups may change. Seen were 0.005 of
 * Bonsai's form, 0.002 of TriLM's and 0.0002 of BitCPM's.
 */
const ROUNDING_ERROR = 0.01;

/** What a model's inputs of linears are rounded by, here and by the kernels. */
const ROUNDINGS: Record<string, Rounding> = {
  bonsai: 128,
  trilm: 128,
  bitcpm: 128,
  "embedding-qwen3": "token",
  "embedding-gemma3": "token",
  maple: "token",
};

/** No public implementation of Maple is on PyPI: the decoder in doubles alone says what is right. */
const MAPLE: MadeModel = {
  name: "maple",
  dtype: "BF16",
  config: {
    architectures: ["MapleForCausalLM"],
    model_type: "maple",
    hidden_size: 128,
    moe_intermediate_size: 64,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    vocab_size: 256,
    rms_norm_eps: 1e-6,
    max_position_embeddings: 64,
    num_experts: 8,
    num_experts_per_tok: 2,
    norm_topk_prob: true,
    swiglu_limit: 7,
    sliding_window: 5,
    partial_rotary_factor: 0.5,
    rope_theta: 10000,
    rope_parameters: { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 0.5 },
    layer_types: [
      "sliding_attention",
      "sliding_attention",
      "sliding_attention",
      "full_attention",
    ],
    tie_word_embeddings: false,
  },
  tensors: mapleTensors(),
  exact: MADE.sequences.map((ids) => ids.map((_, i) => i)),
};

function mapleTensors(): MadeModel["tensors"] {
  const tensors: MadeModel["tensors"] = {
    "model.embed_tokens.weight": { shape: [256, 128], kind: "embedding" },
    "model.norm.weight": { shape: [128], kind: "norm" },
    "lm_head.weight": { shape: [256, 128], kind: "embedding" },
  };
  for (let layer = 0; layer < 4; layer++) {
    const add = (name: string, shape: number[], kind: string) =>
      tensors[`model.layers.${layer}.${name}.weight`] = { shape, kind };
    for (const name of ["input_layernorm", "post_attention_layernorm"]) add(name, [128], "norm");
    for (const name of ["q", "k"]) add(`self_attn.${name}_norm`, [32], "norm");
    for (const [name, rows] of [["q", 128], ["k", 64], ["v", 64], ["o", 128]] as const) {
      add(`self_attn.${name}_proj`, [rows, 128], "row");
    }
    add("mlp.gate", [8, 128], "offset");
    for (const name of ["gate", "up"]) add(`mlp.experts.${name}_proj`, [8, 64, 128], "row");
    add("mlp.experts.down_proj", [8, 128, 64], "row");
  }
  return tensors;
}

/** Bonsai as it is published: embedding and head are ternary too, one matrix or two. */
function withTernaryEnds(tied: boolean): MadeModel {
  const made = madeModel("bonsai");
  const { "lm_head.weight": head, ...others } = made.tensors;
  const kind = "group 128";
  const embedding = { ...made.tensors["model.embed_tokens.weight"], kind };
  return {
    ...made,
    name: tied ? "bonsai, tied" : "bonsai, ternary throughout",
    config: { ...made.config, tie_word_embeddings: tied },
    tensors: {
      ...others,
      "model.embed_tokens.weight": embedding,
      ...(tied ? {} : { "lm_head.weight": { ...head, kind } }),
    },
    exact: MADE.sequences.map((ids) => ids.map((_, i) => i)),
  };
}

/** Logits of all sequences as the runtime computes them, a row a token. */
async function logitsOf(made: MadeModel, options: LoadOptions): Promise<Float32Array[][]> {
  const folder = await mkdtemp(join(tmpdir(), "trilith-made-"));
  try {
    const files = { ...madeFolder(made), "tokenizer.json": JSON.stringify(TOKENIZER) };
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(folder, name), content);
    }
    await using model = await loadModel(folder, options);
    const all: Float32Array[][] = [];
    for (const ids of MADE.sequences) {
      const rows: Float32Array[] = [];
      for await (const { logits } of model.logits(ids, { positions: "all" })) rows.push(logits);
      all.push(rows);
    }
    return all;
  } finally {
    await rm(folder, { recursive: true });
  }
}

type Rows = readonly (readonly ArrayLike<number>[])[];

interface Difference {
  sequence: number;
  position: number;
  /** Of the largest logit of the row. */
  most: number;
  mean: number;
}

function differences(actual: Rows, expected: Rows): Difference[] {
  return expected.flatMap((rows, sequence) =>
    rows.map((row, position) => {
      const size = Math.max(...Array.from(row, Math.abs));
      const apart = Array.from(row, (v, i) => Math.abs(v - actual[sequence][position][i]) / size);
      const mean = apart.reduce((sum, v) => sum + v, 0) / apart.length;
      return { sequence, position, most: Math.max(...apart), mean };
    })
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Published rows, a token each. */
function published(made: MadeModel): Float32Array[][] {
  const vocabSize = Number(made.config.vocab_size);
  return publishedLogits(made).map((all) =>
    Array.from(
      { length: all.length / vocabSize },
      (_, t) => all.subarray(t * vocabSize, (t + 1) * vocabSize),
    )
  );
}

function checkExact({ exact }: MadeModel, apart: readonly Difference[]): void {
  const checked = apart.filter(({ sequence, position }) => exact[sequence].includes(position));
  assert.ok(checked.length >= apart.length / 4, `${checked.length} of ${apart.length} are exact`);
  for (const each of checked) assert.ok(each.most <= TOLERANCE, JSON.stringify(each));
}

for (const made of MADE.models) {
  Deno.test(`architectures: ${made.name}: doubles give transformers' logits`, () => {
    const rounding = ROUNDINGS[made.name] === "token" ? "token" : null;
    checkExact(made, differences(float64Logits(made, MADE.sequences, rounding), published(made)));
  });
}

const OTHERS = [MAPLE, withTernaryEnds(false), withTernaryEnds(true)];

for (const made of [...MADE.models, ...OTHERS]) {
  Deno.test(`architectures: ${made.name}: the kernels give what doubles give`, async () => {
    const native = await logitsOf(made, { threads: 1 });
    assert.deepEqual(await logitsOf(made, { kernels: "reference" }), native);
    const rounding = ROUNDINGS[made.name.split(",")[0]];
    const apart = differences(native, float64Logits(made, MADE.sequences, rounding));
    checkExact(made, apart);
    assert.ok(mean(apart.map((each) => each.mean)) <= TIPPED, JSON.stringify(apart));
    if (typeof rounding !== "number" || OTHERS.includes(made)) return;
    const error = mean(differences(native, published(made)).map((each) => each.mean));
    assert.ok(error <= ROUNDING_ERROR, `int8 by groups moves logits by ${error} on average`);
  });
}
