/**
 * Folders that MLX wrote, compared with their twins of floats: the same packed bytes, the same logits to
 * the last bit.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { convertModel } from "../runtime/convert/convert.ts";
import { CheckpointError, UnsupportedModelError } from "../runtime/errors.ts";
import { toFloat32 } from "../runtime/float_formats.ts";
import { widened } from "../runtime/gguf/float_blocks.ts";
import { inspectModel } from "../runtime/inspect.ts";
import type { JsonObject } from "../runtime/json.ts";
import { loadModel } from "../runtime/mod.ts";
import { MADE, type MadeModel } from "./made_models.ts";
import { bonsaiOfBlocks, MAPLE, withGroups } from "./made_variants.ts";
import { type Files, mlxConfig, mlxTensors, mlxTwins } from "./mlx_folder.ts";
import { packed, regionsOf } from "./packed_model.ts";
import { safetensorsFile, type TestTensor, withFolder } from "./safetensors_file.ts";

/** Runs `use` on the folders of both forms. */
function withTwins<T>(
  made: MadeModel,
  use: (mlx: string, twin: string) => Promise<T>,
): Promise<T> {
  const { mlx, twin } = mlxTwins(made);
  return withFolder(mlx, (own) => withFolder(twin, (other) => use(own, other)));
}

async function logitsOf(path: string): Promise<Float32Array[]> {
  await using model = await loadModel(path);
  const all = await Array.fromAsync(model.logits(MADE.sequences[1], { positions: "all" }));
  return all.map(({ logits }) => logits);
}

const MODELS: readonly (readonly [what: string, made: MadeModel, types: readonly string[]])[] = [
  ["Bonsai", bonsaiOfBlocks(false), ["PQ2_0", "F16"]],
  ["Bonsai, tied", bonsaiOfBlocks(true), ["PQ2_0", "F16"]],
  ["Bonsai in groups of 64", withGroups(bonsaiOfBlocks(false), 64), ["Q2_0", "F16"]],
  ["Bonsai in bfloat16", { ...bonsaiOfBlocks(false), dtype: "BF16" }, ["Q2_0_BF16", "BF16"]],
  ["Maple", MAPLE, ["Q2_0_BF16", "F16", "BF16"]],
];

for (const [what, made, types] of MODELS) {
  Deno.test(`MLX's ${what} is packed as its twin, and says what it is`, () =>
    withTwins(made, async (mlx, folder) => {
      const [own, twin] = [await packed(mlx), await packed(folder)];
      assert.deepEqual(own.config.spec, twin.config.spec);
      const regions = regionsOf(twin);
      for (const [name, bytes] of regionsOf(own)) assert.deepEqual(bytes, regions.get(name), name);
      const report = await inspectModel(mlx);
      assert.deepEqual(report.tensorTypes.map(({ type }) => type), types);
      assert.equal(report.parameters, (await inspectModel(folder)).parameters);
    }));
}

for (const [what, made] of [MODELS[0], MODELS[4]]) {
  Deno.test(`MLX's ${what} has its twin's logits with native kernels`, () =>
    withTwins(made, async (mlx, twin) => {
      assert.deepEqual(await logitsOf(mlx), await logitsOf(twin));
    }));
}

Deno.test("MLX's Bonsai becomes a packed file with the same logits", () =>
  withTwins(MODELS[0][1], async (mlx, twin) => {
    const target = join(mlx, "bonsai.trilith");
    await convertModel(mlx, target);
    assert.deepEqual(await logitsOf(target), await logitsOf(twin));
  }));

const GGUFS = [[MODELS[1], { type: "pq2_0" }], [MODELS[4], {
  type: "q2_0",
  embeddingType: "f16",
}]] as const;

for (const [[what, made], options] of GGUFS) {
  Deno.test(`MLX's ${what} becomes a GGUF file with the same weights`, () =>
    withTwins(made, async (mlx, twin) => {
      const target = join(mlx, "model.gguf");
      await convertModel(mlx, target, options);
      const regions = regionsOf(await packed(twin));
      for (const [name, bytes] of regionsOf(await packed(target))) {
        // GGUF files have these in another type.
        if (/norm|router/.test(name)) continue;
        assert.deepEqual(bytes, regions.get(name), name);
      }
    }));
}

const FIXTURE = new URL("fixtures_made/mlx.safetensors", import.meta.url);

Deno.test("matrices that the mlx package wrote have the values that it reads", async () => {
  const config = {
    quantization: {
      group_size: 128,
      bits: 2,
      half64: { group_size: 64 },
      four: { bits: 4, group_size: 64 },
      eight: { bits: 8, group_size: 32, mode: "affine" },
    },
  };
  const files = {
    "config.json": JSON.stringify(config),
    "model.safetensors": await readFile(FIXTURE),
  };
  await withFolder(files, async (folder) => {
    await using checkpoint = await openCheckpoint(folder);
    const matrices = ["half128", "half64", "bfloat128", "four", "eight"];
    assert.equal(checkpoint.tensors.size, 2 * matrices.length);
    for (const name of matrices) {
      const bytes = await checkpoint.read(`${name}.weight`);
      const { dtype, shape } = checkpoint.tensors.get(`${name}.weight`)!;
      const found = dtype === "F16" ? toFloat32(bytes, "f16") : widened(bytes, dtype, name);
      const values = toFloat32(await checkpoint.read(`${name}.values`), "f32");
      assert.deepEqual(shape, checkpoint.tensors.get(`${name}.values`)!.shape);
      const expected = dtype === "F16" ? Float32Array.from(Float16Array.from(values)) : values;
      assert.deepEqual(found.map((v) => v + 0), expected.map((v) => v + 0), name);
      // Any range is that of the whole.
      assert.deepEqual(
        await checkpoint.readRange(`${name}.weight`, 7, 99),
        bytes.subarray(7, 7 + 99),
      );
    }
    await assert.rejects(checkpoint.readRange("four.weight", 1000, 100), RangeError);
  });
});

// ---------------------------------------------------------------- what is refused

const LINEAR = "model.layers.0.mlp.down_proj";

/** Of one layer, which is quicker. */
const SMALL = (() => {
  const made = bonsaiOfBlocks(false);
  const kept = Object.entries(made.tensors).filter(([name]) => !/layers\.[^0]/.test(name));
  return {
    ...made,
    config: { ...made.config, num_hidden_layers: 1 },
    tensors: Object.fromEntries(kept),
  };
})();
const SOUND = mlxTensors(SMALL).mlx;

/** It with some tensors or settings changed. */
function changed(
  change: (tensors: Record<string, TestTensor>, quantization: JsonObject) => void,
): Files {
  const tensors = structuredClone(SOUND);
  const config = mlxConfig(SMALL);
  const quantization = { ...config.quantization as JsonObject };
  change(tensors, quantization);
  return {
    "config.json": JSON.stringify({ ...config, quantization }),
    "model.safetensors": safetensorsFile(tensors),
  };
}

const REFUSED: readonly (readonly [
  what: string,
  change: Parameters<typeof changed>[0],
  error: typeof CheckpointError | typeof UnsupportedModelError,
  message: RegExp,
])[] = [
  [
    "code 3",
    (tensors) => tensors[`${LINEAR}.weight`].bytes[5] |= 3,
    CheckpointError,
    /down_proj.weight".* code at row 0, column 20 is 3/,
  ],
  [
    "a bias other than -scale",
    (tensors) => tensors[`${LINEAR}.biases`].bytes[0] ^= 1,
    UnsupportedModelError,
    /row 0, group 0: .* bias is -scale/,
  ],
  [
    "a bias of the scale's sign in an embedding",
    (tensors) => tensors["model.embed_tokens.biases"].bytes[2 * 9 + 1] ^= 0x80,
    UnsupportedModelError,
    /embed_tokens", row 4, group 1: .* bias is -scale/,
  ],
  [
    "a scale that is infinite",
    (tensors) => {
      tensors[`${LINEAR}.scales`].bytes.set([0, 0x7c]);
      tensors[`${LINEAR}.biases`].bytes.set([0, 0xfc]);
    },
    CheckpointError,
    /must be finite/,
  ],
  [
    "linears of 4 bits",
    (_, quantization) => quantization[LINEAR] = { bits: 4, group_size: 64 },
    UnsupportedModelError,
    /down_proj" of 4 bits: .* only if they have 2: get/,
  ],
  [
    "a head of 3 bits",
    (_, quantization) => quantization.lm_head = { bits: 3, group_size: 64 },
    UnsupportedModelError,
    /lm_head" of 3 bits: .* 2, 4 or 8: get/,
  ],
  [
    "another mode",
    (_, quantization) => quantization.mode = "mxfp4",
    UnsupportedModelError,
    /mode "affine".*mxfp4/,
  ],
  [
    "no bits",
    (_, quantization) => delete quantization.bits,
    UnsupportedModelError,
    /and null|undef/,
  ],
  [
    "groups of another size",
    (_, quantization) => quantization.group_size = 64,
    CheckpointError,
    /groups of 64 its scales must be/,
  ],
  [
    "words alone",
    (tensors) => delete tensors[`${LINEAR}.biases`],
    UnsupportedModelError,
    /must have scales and biases, or row_alpha/,
  ],
  [
    "too few factors of rows",
    (tensors) => {
      const { dtype } = tensors[`${LINEAR}.scales`];
      tensors[`${LINEAR}.row_alpha`] = { dtype, shape: [3], bytes: new Uint8Array(6) };
    },
    CheckpointError,
    /its factors must be/,
  ],
  [
    "scales of 32 bits",
    (tensors) => {
      for (const part of ["scales", "biases"]) {
        const { shape, bytes } = tensors[`${LINEAR}.${part}`];
        const wide = new Uint8Array(2 * bytes.length);
        tensors[`${LINEAR}.${part}`] = { dtype: "F32", shape, bytes: wide };
      }
    },
    UnsupportedModelError,
    /must be F16 or BF16/,
  ],
];

for (const [what, change, error, message] of REFUSED) {
  Deno.test(`MLX's folder is refused for ${what}`, () =>
    withFolder(changed(change), async (folder) => {
      await assert.rejects(packed(folder), (thrown: Error) => {
        assert.ok(thrown instanceof error, String(thrown));
        assert.match(thrown.message, message);
        assert.doesNotMatch(thrown.message, /\n/);
        return true;
      });
    }));
}
