import assert from "node:assert/strict";
import fc from "fast-check";
import { LINEAR_NAMES, linearShape } from "../codegen/model_spec.ts";
import { fixturePath } from "../tests/fixtures.ts";
import {
  bf16Bytes,
  safetensorsFile,
  type TestTensor,
  withFolder,
} from "../tests/safetensors_file.ts";
import { type Checkpoint, openCheckpoint } from "./checkpoint.ts";
import { openWeights } from "./checkpoint_weights.ts";
import { type ModelConfig, readModelConfig } from "./config.ts";
import { CheckpointError, UnsupportedModelError } from "./errors.ts";
import { ternaryOf } from "./ternary.ts";
import type { TernaryWeights, WeightSource } from "./weights.ts";

interface Opened extends AsyncDisposable {
  checkpoint: Checkpoint;
  config: ModelConfig;
  weights: WeightSource;
}

async function opened(path: string): Promise<Opened> {
  const checkpoint = await openCheckpoint(path);
  const config = await readModelConfig(checkpoint);
  const weights = openWeights(config, checkpoint);
  return { checkpoint, config, weights, [Symbol.asyncDispose]: () => checkpoint.close() };
}

function ternary({ matrix, what, scale }: TernaryWeights) {
  const found = ternaryOf(matrix, what);
  return { codes: found.codes, scale: (scale ?? found.scale)! };
}

const openFixture = (name: string) => opened(fixturePath(`models/${name}`));

Deno.test("quantising the bf16 masters gives exactly the packed codes, 28 of 28", async () => {
  await using masters = await openFixture("bitnet-2b4t-bf16");
  await using packed = await openFixture("bitnet-2b4t-packed");
  let matrices = 0;
  for (let layer = 0; layer < packed.config.spec.numHiddenLayers; layer++) {
    for (const name of LINEAR_NAMES) {
      const fromMaster = ternary(await masters.weights.linear(layer, name));
      const fromPacked = ternary(await packed.weights.linear(layer, name));
      assert.deepEqual(fromMaster.codes, fromPacked.codes, `${layer} ${name}`);
      // The packed file's scale is the master's, rounded to bfloat16's 8 bits.
      const relative = Math.abs(fromMaster.scale / fromPacked.scale - 1);
      assert.ok(relative <= 2 ** -8, `${layer} ${name}: ${relative}`);
      matrices++;
    }
  }
  assert.equal(matrices, 28);
});

Deno.test("bitlinear's scale is one over what the file has, autobitlinear's is the file's", async () => {
  const scaleBytes = async ({ checkpoint, config }: Opened) => {
    const bytes = await checkpoint.read(`${config.tensorNames.linear(0, "q")}.weight_scale`);
    return new Float32Array(Uint32Array.of((bytes[1] << 24) | (bytes[0] << 16)).buffer)[0];
  };
  await using divides = await openFixture("llama3-158-packed");
  const inverse = (await divides.weights.linear(0, "q")).scale;
  assert.equal(inverse, Math.fround(1 / await scaleBytes(divides)));
  await using multiplies = await openFixture("llama-autobit-offline");
  const scale = (await multiplies.weights.linear(0, "q")).scale;
  assert.equal(scale, await scaleBytes(multiplies));
  // Both are mean|W|, which training keeps well below 1.
  assert.ok(inverse < 1 && scale < 1);
});

Deno.test("norms, linear norms and row ranges have the model's shapes", async () => {
  await using model = await openFixture("llama-packed-rmsnorm");
  const { spec } = model.config;
  for (const name of LINEAR_NAMES) {
    const { n, k } = linearShape(spec, name);
    const { matrix, inputNorm, bias } = await model.weights.linear(2, name);
    assert.deepEqual([matrix.n, matrix.k, matrix.bytes.length], [n, k, n / 4 * k]);
    assert.deepEqual([inputNorm?.length, bias], [k, null]);
  }
  assert.equal((await model.weights.norm(0, "input")).length, spec.hiddenSize);
  assert.equal((await model.weights.finalNorm()).length, spec.hiddenSize);
  const head = model.weights.head();
  assert.deepEqual([head.rows, head.columns, head.type], [512, 256, "bf16"]);
  const whole = await model.checkpoint.read("lm_head.weight");
  assert.deepEqual(await head.readRows(3, 2), whole.subarray(3 * 512, 5 * 512));
  await assert.rejects(head.readRows(511, 2), RangeError);
});

Deno.test("sub-norms are as long as what they normalise", async () => {
  await using model = await openFixture("bitnet-2b4t-packed");
  assert.equal((await model.weights.norm(1, "attnSub")).length, 256);
  assert.equal((await model.weights.norm(1, "ffnSub")).length, 640);
  assert.deepEqual(
    await model.weights.head().readRows(0, 1),
    await model.weights.embedding().readRows(0, 1),
  );
});

/** A model of one layer whose every value can be changed. */
function tinyTensors(): Record<string, TestTensor> {
  const tensors: Record<string, TestTensor> = {};
  const float = (name: string, values: number[], ...shape: number[]) => {
    tensors[name] = { dtype: "BF16", shape, bytes: bf16Bytes(values) };
  };
  float("model.embed_tokens.weight", new Array(16).fill(0.5), 4, 4);
  float("model.norm.weight", [1, 1, 1, 1], 4);
  float("model.layers.0.input_layernorm.weight", [1, 1, 1, 1], 4);
  float("model.layers.0.post_attention_layernorm.weight", [1, 1, 1, 1], 4);
  for (
    const path of ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"].concat(
      ["mlp.gate", "mlp.up", "mlp.down"],
    )
  ) {
    const name = `model.layers.0.${path}_proj`;
    tensors[`${name}.weight`] = { dtype: "U8", shape: [1, 4], bytes: Uint8Array.of(0, 1, 2, 0) };
    float(`${name}.weight_scale`, [0.5], 1);
  }
  float("model.layers.0.mlp.up_proj.bias", [1, -2, 3, 0], 4);
  return tensors;
}

const tinyConfig = (linearClass: string) =>
  JSON.stringify({
    model_type: "llama",
    hidden_size: 4,
    intermediate_size: 4,
    num_hidden_layers: 1,
    num_attention_heads: 1,
    vocab_size: 4,
    quantization_config: { quant_method: "bitnet", linear_class: linearClass },
  });

async function withTiny<T>(
  tensors: Record<string, TestTensor>,
  linearClass: string,
  use: (weights: WeightSource) => Promise<T>,
): Promise<T> {
  const files = {
    "config.json": tinyConfig(linearClass),
    "model.safetensors": safetensorsFile(tensors),
  };
  return await withFolder(files, async (folder) => {
    await using model = await opened(folder);
    return await use(model.weights);
  });
}

Deno.test("a bias is scaled with autobitlinear and not with bitlinear", async () => {
  await withTiny(tinyTensors(), "autobitlinear", async (weights) => {
    const { scale, bias } = await weights.linear(0, "up");
    assert.deepEqual([scale, [...bias!]], [0.5, [0.5, -1, 1.5, 0]]);
  });
  await withTiny(tinyTensors(), "bitlinear", async (weights) => {
    const { scale, bias } = await weights.linear(0, "up");
    assert.deepEqual([scale, [...bias!]], [2, [1, -2, 3, 0]]);
    assert.equal((await weights.linear(0, "gate")).bias, null);
  });
});

for (const scale of [NaN, Infinity, -Infinity, 0, -0.5, 1e-39]) {
  Deno.test(`a weight_scale of ${scale} is refused`, async () => {
    const tensors = tinyTensors();
    tensors["model.layers.0.mlp.up_proj.weight_scale"].bytes = bf16Bytes([scale]);
    await withTiny(tensors, "bitlinear", async (weights) => {
      await assert.rejects(weights.linear(0, "up"), CheckpointError);
      await weights.linear(0, "down");
    });
  });
}

Deno.test("a norm that is not finite and a code 3 are refused by name", async () => {
  const tensors = tinyTensors();
  tensors["model.norm.weight"].bytes = bf16Bytes([1, NaN, 1, 1]);
  tensors["model.layers.0.mlp.up_proj.weight"].bytes = Uint8Array.of(0, 0b11_00, 0, 0);
  await withTiny(tensors, "bitlinear", async (weights) => {
    await assert.rejects(weights.finalNorm(), /model.norm.weight.*element 1 is NaN/);
    const up = await weights.linear(0, "up");
    assert.throws(() => ternary(up), /up_proj.weight": codes.*row 1, column 1 is 3/);
  });
});

async function readEverything(folder: string): Promise<void> {
  await using model = await opened(folder);
  const { weights, config } = model;
  for (let layer = 0; layer < config.spec.numHiddenLayers; layer++) {
    for (const name of LINEAR_NAMES) ternary(await weights.linear(layer, name));
    await weights.norm(layer, "input");
  }
  await weights.finalNorm();
  await weights.embedding().readRows(0, 1);
  await weights.head().readRows(0, 1);
}

Deno.test("any changed bytes of a whole model are an error of ours or another model", async () => {
  const file = safetensorsFile(tinyTensors());
  const config = new TextEncoder().encode(tinyConfig("autobitlinear"));
  const change = fc.tuple(fc.boolean(), fc.nat(file.length - 1), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.option(fc.nat(file.length)),
      async (changes, cut) => {
        const changed = { weights: file.slice(0, cut ?? file.length), config: config.slice() };
        for (const [isConfig, at, value] of changes) {
          const bytes = isConfig ? changed.config : changed.weights;
          bytes[at % bytes.length] = value;
        }
        const files = { "config.json": changed.config, "model.safetensors": changed.weights };
        await withFolder(files, async (folder) => {
          await readEverything(folder).catch((error) => {
            const isOurs = error instanceof CheckpointError ||
              error instanceof UnsupportedModelError;
            assert.ok(isOurs && !error.message.includes("\n"), String(error));
          });
        });
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("the tiny model is sound, so that the changes above are what is refused", async () => {
  const files = {
    "config.json": tinyConfig("autobitlinear"),
    "model.safetensors": safetensorsFile(tinyTensors()),
  };
  await withFolder(files, readEverything);
});
