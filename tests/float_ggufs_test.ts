/**
 * Ternary models in GGUF's types of floats, as converters write them where nobody asks for another type:
 * packed as their safetensors twins.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toFloat32 } from "../runtime/float_formats.ts";
import { NotTernaryError } from "../runtime/errors.ts";
import { fixturePath } from "./fixtures.ts";
import { f32Bytes, type TestValue } from "./gguf_builder.ts";
import { ggufTwin, type TwinOptions, type TwinType } from "./gguf_twin.ts";
import { madeFolder, type MadeModel, madeModel } from "./made_models.ts";
import { withOneFactor } from "./made_variants.ts";
import { packed, regionsOf } from "./packed_model.ts";
import { bf16Bytes, withFolder } from "./safetensors_file.ts";

const halves = (values: readonly number[]) =>
  new Uint8Array(Float16Array.from(values).buffer as ArrayBuffer);

/** Blocks of 32 with the factor d in half precision, and 32 integers that `round` makes of w / d. */
function blocks(
  values: Float32Array,
  factor: (block: Float32Array) => number,
  encode: (integers: number[]) => number[],
): Uint8Array {
  const bytes: number[] = [];
  for (let at = 0; at < values.length; at += 32) {
    const block = values.subarray(at, at + 32);
    const exact = factor(block);
    const integers = Array.from(block, (w) => exact === 0 ? 0 : w / exact);
    bytes.push(...halves([exact]), ...encode(integers));
  }
  return Uint8Array.from(bytes);
}

/** The weight of the largest magnitude, with its sign. */
function signedLargest(block: Float32Array): number {
  return block.reduce((most, w) => Math.abs(w) > Math.abs(most) ? w : most, 0);
}

/** ggml's rule for types with one step more below 0 than above. */
function lopsided(steps: number, fifthBits: boolean): TwinType["encode"] {
  return (values) =>
    blocks(values, (block) => signedLargest(block) / -steps, (integers) => {
      const codes = integers.map((x) => Math.min(Math.trunc(x + steps + 0.5), 2 * steps - 1));
      const nibbles = codes.slice(0, 16).map((low, i) => low & 15 | (codes[16 + i] & 15) << 4);
      const fifth = [0, 1, 2, 3].map((byte) =>
        codes.slice(8 * byte, 8 * byte + 8).reduce((sum, code, i) => sum | code >> 4 << i, 0)
      );
      return fifthBits ? [...fifth, ...nibbles] : nibbles;
    });
}

const F16: TwinType = { id: 1, encode: (values) => halves([...values]) };
const TYPES: Readonly<Record<string, TwinType>> = {
  F32: { id: 0, encode: (values) => f32Bytes([...values]) },
  F16,
  BF16: { id: 30, encode: (values) => bf16Bytes([...values]) },
  Q8_0: {
    id: 8,
    encode: (values) =>
      blocks(
        values,
        (block) => Math.abs(signedLargest(block)) / 127,
        (integers) => integers.map((x) => Math.round(x) & 255),
      ),
  },
  Q4_0: { id: 2, encode: lopsided(8, false) },
  Q5_0: { id: 6, encode: lopsided(16, true) },
};

/** A llama with a magnitude a matrix, whose config.json says that it is a BitNet. */
function bitnetLlama(): MadeModel {
  const made = withOneFactor(madeModel("trilm"));
  return { ...made, config: { ...made.config, is_bitnet_config: true } };
}

async function packedTwin(folder: string, options: TwinOptions) {
  const path = join(folder, "twin.gguf");
  await writeFile(path, await ggufTwin(folder, options));
  return await packed(path);
}

/** Half an ulp of half precision. */
const HALF_ERROR = 2 ** -11;

for (const [name, type] of Object.entries(TYPES)) {
  Deno.test(`a llama with a magnitude a matrix in ${name} is packed as its twin`, () =>
    withFolder(madeFolder(bitnetLlama()), async (folder) => {
      const own = await packedTwin(folder, { architecture: "llama", type });
      const twin = await packed(folder);
      const types = { embeddingType: "f32", headType: "f32" };
      assert.deepEqual(own.config.spec, { ...twin.config.spec, ...types });
      assert.equal(own.config.spec.groups, undefined);
      const regions = regionsOf(twin);
      for (const [name, bytes] of regionsOf(own)) {
        const expected = regions.get(name)!;
        if (name === "embedding" || name === "head") {
          assert.deepEqual(toFloat32(bytes, "f32"), toFloat32(expected, "f16"), name);
        } else if (name.endsWith("scales") && type === TYPES.Q8_0) {
          const scales = toFloat32(expected, "f32");
          toFloat32(bytes, "f32").forEach((scale, i) =>
            assert.ok(Math.abs(scale - scales[i]) <= scales[i] * HALF_ERROR, name)
          );
        } else assert.deepEqual(bytes, expected, name);
      }
    }));
}

Deno.test("a llama with a magnitude a matrix and TriLM's words has its inputs rounded by groups", () =>
  withFolder(madeFolder(withOneFactor(madeModel("trilm"))), async (folder) => {
    const words = (pre: string): Record<string, TestValue> => ({
      "tokenizer.ggml.pre": ["string", pre],
    });
    const groups = async (values: Record<string, TestValue>) =>
      (await packedTwin(folder, { architecture: "llama", type: F16, values })).config.spec.groups;
    assert.deepEqual(await groups(words("olmo")), { size: 128, weightScales: false });
    assert.equal(await groups(words("llama-bpe")), undefined);
    const said: TestValue = ["u32", 0];
    assert.equal(await groups({ ...words("olmo"), "trilith.input_group_size": said }), undefined);
  }));

Deno.test("weights of -1, 0 and 1 are multiplied by the factors beside them", () =>
  withFolder(madeFolder(bitnetLlama()), async (folder) => {
    for (const type of [F16, TYPES.F32]) {
      const options = { architecture: "llama", type };
      const { bytes } = await packedTwin(folder, options);
      const apart = { ...options, outputFactor: (magnitude: number) => magnitude };
      assert.deepEqual((await packedTwin(folder, apart)).bytes, bytes);
      for (const [factor, message] of [[0, /must be positive/], [NaN, /must be finite/]] as const) {
        const bad = { ...options, outputFactor: () => factor };
        await assert.rejects(packedTwin(folder, bad), message);
      }
    }
  }));

Deno.test("queries, keys and values in one tensor are taken apart", () =>
  withFolder(madeFolder(withOneFactor(madeModel("trilm"))), async (folder) => {
    const options = { architecture: "llama", type: F16 };
    const { bytes } = await packedTwin(folder, options);
    assert.deepEqual((await packedTwin(folder, { ...options, fused: true })).bytes, bytes);
    const fewer: Record<string, TestValue> = { "llama.attention.head_count_kv": ["u32", 2] };
    await assert.rejects(
      packedTwin(folder, { ...options, fused: true, values: fewer }),
      /attn_qkv.weight": by the file's keys .* must have 256 rows together: current value is 384/,
    );
  }));

Deno.test("floats of BitNet's own architecture are masters, whose RoPE has BitNet's base", async () => {
  const folder = fixturePath("models/bitnet-2b4t-bf16");
  await withFolder({}, async (empty) => {
    const path = join(empty, "masters.gguf");
    const without = ["bitnet-b1.58.rope.freq_base"];
    const options = { architecture: "bitnet-b1.58", type: TYPES.BF16, without };
    await writeFile(path, await ggufTwin(folder, options));
    const [own, twin] = [await packed(path), await packed(folder)];
    assert.deepEqual(own.config.quantization, twin.config.quantization);
    assert.equal(own.config.ropeTheta, 500000);
    const regions = regionsOf(twin);
    for (const [name, bytes] of regionsOf(own)) {
      if (name !== "embedding") assert.deepEqual(bytes, regions.get(name), name);
    }
  });
});

Deno.test("linears in a type that rounds are refused, and the types that do not are named", () =>
  withFolder(madeFolder(madeModel("bitcpm")), async (folder) => {
    // Q4_0 of magnitudes that differ within a block.
    const noisy: TwinType = {
      ...TYPES.Q4_0,
      encode: (values) => TYPES.Q4_0.encode(values.map((w, i) => w * (1 + i % 3 / 8))),
    };
    await assert.rejects(
      packedTwin(folder, { architecture: "minicpm", type: noisy }),
      (error: Error) => {
        assert.ok(error instanceof NotTernaryError);
        assert.match(error.message, /linears are floats in Q4_0.*get its file in TQ1_0, TQ2_0/);
        return true;
      },
    );
  }));
