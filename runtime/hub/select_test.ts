import assert from "node:assert/strict";
import { patternMatcher } from "./patterns.ts";
import { ggufGroups, namedGguf, selectFiles, weightsOf } from "./select.ts";

const BESIDE = ["config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"];

function select(paths: string[], selection: Parameters<typeof selectFiles>[2] = {}) {
  return selectFiles(paths, "org/name", selection);
}

Deno.test("selectFiles: safetensors once, with what is read beside them", () => {
  const noise = [
    ".gitattributes",
    "README.md",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "onnx/model.onnx",
    "original/consolidated.00.pth",
    "other.gguf",
    "fp32/model.safetensors",
    "flax_model.msgpack",
  ];
  assert.deepEqual(
    select([...BESIDE, ...noise, "model.safetensors"]),
    [...BESIDE, "model.safetensors"].sort(),
  );
});

Deno.test("selectFiles: shards need their index", () => {
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const index = "model.safetensors.index.json";
  assert.deepEqual(select(["config.json", index, ...shards]), ["config.json", ...shards, index]);
  assert.throws(() => select(["config.json", ...shards]), /no model\.safetensors/);
});

Deno.test("selectFiles: of GGUF files the only one, or the one that is ternary", () => {
  assert.deepEqual(select(["README.md", "x.gguf", "LICENSE.md"]), ["LICENSE.md", "x.gguf"]);
  const bonsai = ["Bonsai-8B-F16.gguf", "Bonsai-8B-Q2_0.gguf"];
  assert.deepEqual(select(bonsai), ["Bonsai-8B-Q2_0.gguf"]);
  const bitcpm = ["bitcpm4-8b-bf16.gguf", "bitcpm4-8b-tq1_0.gguf", "bitcpm4-8b-tq2_0.gguf"];
  assert.deepEqual(select(bitcpm), ["bitcpm4-8b-tq2_0.gguf"]);
  assert.deepEqual(select(["ggml-model-i2_s.gguf", "a-TQ2_0.gguf"]), ["ggml-model-i2_s.gguf"]);
  assert.throws(() => select(["a-Q4_K.gguf", "a-Q8_0.gguf"]), {
    name: "UsageError",
    message: /it has a-Q4_K\.gguf, a-Q8_0\.gguf, name one as org\/name:a-Q4_K\.gguf/,
  });
  assert.throws(() => select(["a-TQ2_0.gguf", "b-TQ2_0.gguf"]), /Cannot choose/);
});

Deno.test("selectFiles: parts of a GGUF file stay together", () => {
  const parts = ["big-TQ2_0-00001-of-00002.gguf", "big-TQ2_0-00002-of-00002.gguf"];
  assert.deepEqual(select([...parts, "big-Q8_0.gguf"]), parts);
  assert.deepEqual(select([...parts, "big-Q8_0.gguf"], { file: "tq2_0" }), parts);
  assert.deepEqual(namedGguf(parts, parts[1], "x"), parts);
  assert.deepEqual(ggufGroups([...parts, "a.gguf"]).map((group) => group.length), [1, 2]);
});

Deno.test("selectFiles: a file by its name or by a word of it", () => {
  const paths = ["config.json", "model.safetensors", "m-TQ1_0.gguf", "m-Q2_0.gguf", "m-PQ2_0.gguf"];
  assert.deepEqual(select(paths, { file: "m-TQ1_0.gguf" }), ["m-TQ1_0.gguf"]);
  assert.deepEqual(select(paths, { file: "q2_0" }), ["m-Q2_0.gguf"]);
  assert.deepEqual(select(paths, { file: "config.json" }), ["config.json"]);
  assert.throws(
    () => select(paths, { file: "Q8_0" }),
    /Cannot find "Q8_0" in org\/name: it has m-/,
  );
  const two = ["a-Q2_0.gguf", "b-Q2_0.gguf"];
  assert.throws(() => select(two, { file: "Q2_0" }), /a-Q2_0.gguf, b-Q2_0.gguf could be meant/);
});

Deno.test("selectFiles: patterns in place of the choice, and against it", () => {
  const paths = [...BESIDE, "model.safetensors", "sub/x.bin"];
  assert.deepEqual(select(paths, { include: ["*.bin"] }), ["sub/x.bin"]);
  assert.deepEqual(select(paths, { exclude: ["LICENSE", "token*"] }), [
    "config.json",
    "model.safetensors",
  ]);
  assert.throws(() => select(paths, { include: ["*.onnx"] }), /fits \*\.onnx: it has config/);
});

Deno.test("selectFiles: what can't be run is said, with the way out", () => {
  assert.throws(() => select(["config.json", "pytorch_model.bin"]), {
    name: "HubError",
    message: /only Python pickles \(pytorch_model\.bin\).*look for its safetensors or GGUF/,
  });
  assert.throws(() => select([]), /it has no files/);
});

Deno.test("selectFiles: a hostile name that is chosen is refused, one that is not is none's business", () => {
  const hostile = "../../../.bashrc";
  assert.deepEqual(select([...BESIDE, "model.safetensors", hostile]).length, 5);
  for (const name of [hostile, "/etc/passwd.gguf", "a\\b.gguf", "C:x.gguf", "\x1b[2J.gguf"]) {
    assert.throws(() => select([name], { include: ["*"] }), {
      name: "HubError",
      message: /not a file name that is safe/,
    });
  }
});

Deno.test("weightsOf: the folder, or the first part of a GGUF file", () => {
  assert.equal(weightsOf(["config.json", "model.safetensors"]), "folder");
  assert.equal(weightsOf(["model.safetensors.index.json", "a.gguf"]), "folder");
  assert.deepEqual(weightsOf(["b-00002-of-00002.gguf", "b-00001-of-00002.gguf"]), {
    file: "b-00001-of-00002.gguf",
  });
  assert.equal(weightsOf(["config.json"]), null);
});

Deno.test("patternMatcher is fnmatch's, as huggingface_hub uses it", () => {
  const fits = (pattern: string, path: string) => patternMatcher(pattern)(path);
  assert.ok(fits("*.json", "a/b.json"));
  assert.ok(fits("a/", "a/b/c"));
  assert.ok(fits("model-?.bin", "model-1.bin"));
  assert.ok(fits("[ab].txt", "b.txt"));
  assert.ok(!fits("[!ab].txt", "b.txt"));
  assert.ok(!fits("*.json", "a.jsonl"));
  assert.ok(!fits("a.b", "axb"));
  assert.ok(fits("a+(b)[", "a+(b)["));
  assert.throws(() => patternMatcher(""), /empty file pattern/);
});
