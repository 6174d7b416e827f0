import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { inFolder } from "../../kernels/test_helpers.ts";
import { fixturePath } from "../../tests/fixtures.ts";
import { readGguf, tensorBytes } from "../../tests/gguf_file.ts";
import { loadModel } from "../mod.ts";
import { openSafetensors } from "../safetensors.ts";
import { convertModel } from "./convert.ts";

const model = (name: string) => fixturePath(`models/${name}`);

/** Bytes of every tensor of a file. */
async function tensorsOf(file: string): Promise<Map<string, Uint8Array>> {
  const opened = await openSafetensors(file);
  try {
    const tensors = new Map<string, Uint8Array>();
    for (const name of opened.tensors.keys()) tensors.set(name, await opened.read(name));
    return tensors;
  } finally {
    await opened.close();
  }
}

async function compareFiles(actual: string, expected: string, left: RegExp): Promise<void> {
  const [a, b] = [await tensorsOf(actual), await tensorsOf(expected)];
  assert.deepEqual([...a.keys()].sort(), [...b.keys()].sort());
  for (const [name, bytes] of b) {
    if (!left.test(name)) assert.ok(Buffer.compare(a.get(name)!, bytes) === 0, name);
  }
}

const NONE = /^$/;

for (
  const [name, twin, left] of [
    ["bitnet-2b4t-packed", "bitnet-2b4t-packed", NONE],
    // Factors are exact where the twin has them rounded to bfloat16.
    ["bitnet-2b4t-bf16", "bitnet-2b4t-packed", /weight_scale$/],
    ["llama3-158-packed-sharded", "llama3-158-packed", NONE],
    ["llama-packed-rmsnorm", "llama-packed-rmsnorm", NONE],
    ["bitnet-2b4t-packed-v5config", "bitnet-2b4t-packed-v5config", NONE],
  ] as const
) {
  Deno.test(`convert: ${name} as a folder has the tensors of ${twin}`, () =>
    inFolder(async (folder) => {
      const target = path.join(folder, "out");
      const report = await convertModel(model(name), target);
      assert.equal(report.format, "safetensors");
      assert.ok(report.verified!.matrices >= 21);
      const file = "model.safetensors";
      await compareFiles(path.join(target, file), path.join(model(twin), file), left);
      assert.deepEqual(fs.readdirSync(folder), ["out"]);
      for (const companion of ["tokenizer.json", "generation_config.json"]) {
        const [ours, theirs] = [target, model(name)].map((at) =>
          fs.readFileSync(path.join(at, companion), "utf8")
        );
        assert.equal(ours, theirs);
      }
    }));
}

async function lastLogits(folder: string, quantize?: "absmean"): Promise<Float32Array> {
  await using opened = await loadModel(folder, { kernels: "reference", quantize });
  for await (const { logits } of opened.logits([1, 2, 3, 4, 5])) return logits;
  throw new Error("no logits");
}

for (const name of ["llama-online-rmsnorm", "llama-plain-bf16"]) {
  Deno.test(`convert: ${name} gives the same logits from packed shards`, () =>
    inFolder(async (folder) => {
      const target = path.join(folder, "out");
      const quantize = name.includes("plain") ? "absmean" : undefined;
      const { files } = await convertModel(model(name), target, {
        quantize,
        splitMaxBytes: 200_000,
      });
      assert.ok(files.filter(({ path }) => path.endsWith(".safetensors")).length > 1);
      const json = JSON.parse(fs.readFileSync(path.join(target, "config.json"), "utf8"));
      assert.equal(json.quantization_config.linear_class, "autobitlinear");
      assert.deepEqual(await lastLogits(target), await lastLogits(model(name), quantize));
    }));
}

for (const name of ["llama3-158-I2_S", "bitnet-silu-TQ1_0", "bitnet-silu-TQ1_0-quantize"]) {
  Deno.test(`convert: ${name} gives the same logits from a folder`, () =>
    inFolder(async (folder) => {
      const target = path.join(folder, "out");
      const gguf = fixturePath(`models-gguf/${name}.gguf`);
      await convertModel(gguf, target);
      assert.deepEqual(await lastLogits(target), await lastLogits(gguf));
    }));
}

for (const name of ["bitnet-2b4t-packed", "llama-packed-rmsnorm"]) {
  Deno.test(`convert: a .trilith file of ${name} gives the same logits from a folder`, () =>
    inFolder(async (folder) => {
      const [packed, target] = [path.join(folder, "m.trilith"), path.join(folder, "out")];
      await convertModel(model(name), packed);
      const { verified } = await convertModel(packed, target);
      assert.ok(verified!.matrices >= 21);
      assert.deepEqual(await lastLogits(target), await lastLogits(model(name)));
    }));
}

Deno.test("convert: from GGUF type to GGUF type the tensors are those that others made", () =>
  inFolder(async (folder) => {
    const gguf = (name: string) => fixturePath(`models-gguf/${name}.gguf`);
    for (
      const [from, to, type] of [
        ["llama3-158-I2_S", "llama3-158-TQ1_0", "tq1_0"],
        ["llama3-158-TQ1_0", "llama3-158-TQ2_0", "tq2_0"],
        ["llama31-158-ropescaled-TQ2_0", "llama31-158-ropescaled-TQ2_0", "tq2_0"],
      ] as const
    ) {
      const file = path.join(folder, "model.gguf");
      await convertModel(gguf(from), file, { type, force: true });
      const [ours, theirs] = [file, gguf(to)].map((each) => tensorBytes(fs.readFileSync(each)));
      assert.deepEqual([...ours.keys()].sort(), [...theirs.keys()].sort());
      for (const [name, bytes] of theirs) {
        assert.ok(Buffer.compare(ours.get(name)!, bytes) === 0, `${to}: ${name}`);
      }
    }
  }));

// ---------------------------------------------------------------- where it goes

const SMALL = model("llama-autobit-offline");

Deno.test("convert: what is there stays without --force, and is replaced with it", () =>
  inFolder(async (folder) => {
    const file = path.join(folder, "model.gguf");
    fs.writeFileSync(file, "mine");
    await assert.rejects(convertModel(SMALL, file), {
      name: "UsageError",
      message: /it is there already: add --force/,
    });
    assert.equal(fs.readFileSync(file, "utf8"), "mine");
    await convertModel(SMALL, file, { force: true });
    assert.equal(fs.readFileSync(file).toString("latin1", 0, 4), "GGUF");
    const listening = path.join(folder, "socket.gguf");
    const server = net.createServer().listen(listening);
    await once(server, "listening");
    await assert.rejects(convertModel(SMALL, listening, { force: true }), {
      name: "UsageError",
      message: /it is neither file nor folder: give another name/,
    });
    await new Promise((resolve) => server.close(resolve));
    const out = path.join(folder, "out");
    fs.mkdirSync(out);
    await convertModel(SMALL, out);
    for (const name of fs.readdirSync(out)) fs.rmSync(path.join(out, name));
    fs.writeFileSync(path.join(out, "letter.txt"), "mine");
    await assert.rejects(convertModel(SMALL, out, { force: true }), {
      name: "UsageError",
      message: /Cannot replace .*out": it is a folder without config.json/,
    });
    fs.writeFileSync(path.join(out, "config.json"), "{}");
    await convertModel(SMALL, out, { force: true });
    assert.ok(fs.existsSync(path.join(out, "model.safetensors")));
    assert.deepEqual(fs.readdirSync(folder).sort(), ["model.gguf", "out"]);
  }));

Deno.test("convert: a model is not converted into itself, nor into a folder that is not there", () =>
  inFolder(async (folder) => {
    for (
      const [target, message] of [
        [SMALL, /into itself/],
        [path.dirname(SMALL), /into itself/],
        [path.join(folder, "none", "model.gguf"), /its folder is not there/],
        [path.join(SMALL, "config.json", "model.gguf"), /config\.json" is no folder/],
        [path.join(folder, "model.bin"), /Cannot tell the format of/],
      ] as const
    ) {
      await assert.rejects(convertModel(SMALL, target, { force: true }), {
        name: "UsageError",
        message,
      });
    }
    await assert.rejects(convertModel(SMALL, path.join(folder, "out"), { type: "i2_s" }), {
      name: "UsageError",
      message: /Cannot use --type with safetensors/,
    });
    assert.deepEqual(fs.readdirSync(folder), []);
  }));

Deno.test("convert: what no reader of the format would run is refused, and nothing is left", () =>
  inFolder(async (folder) => {
    const file = path.join(folder, "model.gguf");
    for (
      const [name, options, message] of [
        ["bitnet-2b4t-packed", { type: "tq2_0" }, /squared ReLU: use --type i2_s/],
        [
          "llama-packed-rmsnorm",
          {},
          /has norms inside its linears, which readers' arch llama has not: use --to packed/,
        ],
        ["falcon3-158-packed", { type: "i2_s" }, /ffn_down has 720, use --type tq2_0/],
      ] as const
    ) {
      await assert.rejects(convertModel(model(name), file, options), {
        name: "UnsupportedModelError",
        message,
      });
    }
    assert.deepEqual(fs.readdirSync(folder), []);
  }));

/** An I2_S file of x86 as one of ARM: blocks of 64 weights in 16 bytes in place of 128 in 32. */
function asArm(file: Uint8Array): Uint8Array {
  const out = Uint8Array.from(file);
  const { tensors, data } = readGguf(file);
  for (const { type, dims, offset } of tensors) {
    if (type !== 36) continue;
    const weights = dims.reduce((product, size) => product * size, 1);
    const at = data + offset;
    out.fill(0, at, at + weights / 4);
    for (let i = 0; i < weights; i++) {
      const code = file[at + 32 * (i >> 7) + i % 32] >> 6 - 2 * (i >> 5 & 3) & 3;
      out[at + 16 * (i >> 6) + i % 16] |= code << 6 - 2 * (i >> 4 & 3);
    }
  }
  return out;
}

Deno.test("convert: an I2_S file of ARM becomes what its x86 twin does, if its layout is told", () =>
  inFolder(async (folder) => {
    const x86 = fixturePath("models-gguf/bitnet-2b4t-I2_S.gguf");
    const arm = path.join(folder, "arm.gguf");
    fs.writeFileSync(arm, asArm(fs.readFileSync(x86)));
    const [expected, told, untold] = ["x86", "told", "untold"].map((name) =>
      path.join(folder, `${name}-out.gguf`)
    );
    await convertModel(x86, expected);
    await convertModel(arm, told, { i2sLayout: "arm" });
    await convertModel(arm, untold);
    // The files' own names are in them.
    const twin = tensorBytes(fs.readFileSync(expected));
    const others = (file: string) =>
      [...tensorBytes(fs.readFileSync(file))].filter(([name, bytes]) =>
        Buffer.compare(bytes, twin.get(name)!) !== 0
      ).map(([name]) => name);
    assert.deepEqual(others(told), []);
    assert.ok(others(untold).length > 0);
  }));
