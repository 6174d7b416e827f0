/** Models that are split into several files, sound and unsound. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ggufFile, type TestFile, type TestValue } from "../../tests/gguf_builder.ts";
import { withFolder } from "../../tests/safetensors_file.ts";
import { openCheckpoint } from "../checkpoint.ts";
import { CheckpointError } from "../errors.ts";

const MODEL: Record<string, TestValue> = {
  "general.architecture": ["string", "llama"],
  "llama.block_count": ["u32", 1],
  "llama.embedding_length": ["u32", 32],
  "llama.feed_forward_length": ["u32", 64],
  "llama.attention.head_count": ["u32", 2],
};

function part(
  no: number,
  names: readonly string[],
  edits: Record<string, TestValue> = {},
): TestFile {
  return {
    values: {
      ...(no === 0 ? MODEL : {}),
      "split.no": ["u16", no],
      "split.count": ["u16", 3],
      "split.tensors.count": ["i32", 4],
      ...edits,
    },
    tensors: Object.fromEntries(names.map((name, i) => {
      const bytes = new Uint8Array(128).fill(16 * no + i);
      return [name, { dims: [32], type: 0, bytes }];
    })),
  };
}

const EMBEDDING = {
  "token_embd.weight": { dims: [32, 4], type: 0, bytes: new Uint8Array(512).fill(7) },
};

function partsOf(): TestFile[] {
  const first = part(0, []);
  return [
    { ...first, tensors: EMBEDDING },
    part(1, ["output_norm.weight", "blk.0.attn_norm.weight"]),
    part(2, ["blk.0.ffn_norm.weight"]),
  ];
}

const nameOf = (i: number, count = 3) => `m-0000${i + 1}-of-0000${count}.gguf`;

/** Opens the files by one of them. */
function opening<T>(
  parts: readonly (TestFile | null)[],
  by: string,
  use: (open: () => ReturnType<typeof openCheckpoint>) => Promise<T>,
): Promise<T> {
  const files = Object.fromEntries(
    parts.flatMap((each, i) => each === null ? [] : [[nameOf(i), ggufFile(each)]]),
  );
  return withFolder(files, (folder) => use(() => openCheckpoint(join(folder, by))));
}

for (const by of [nameOf(0), nameOf(2), ""]) {
  Deno.test(`a split model is opened by ${by === "" ? "its folder" : by}`, () =>
    opening(partsOf(), by, async (open) => {
      await using checkpoint = await open();
      assert.deepEqual([...checkpoint.tensors.keys()].sort(), [
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.norm.weight",
      ]);
      const byteOf = async (name: string) => (await checkpoint.read(name))[0];
      assert.equal(await byteOf("model.embed_tokens.weight"), 7);
      assert.equal(await byteOf("model.norm.weight"), 16);
      assert.equal(await byteOf("model.layers.0.input_layernorm.weight"), 17);
      assert.equal(await byteOf("model.layers.0.post_attention_layernorm.weight"), 32);
      assert.equal(checkpoint.files.length, 3);
    }));
}

type Edit = (parts: (TestFile | null)[]) => void;

const FAULTS: [string, Edit, RegExp][] = [
  ["without a part", (parts) => parts[1] = null, /m-00002-of-00003\.gguf.*: there is no such file/],
  [
    "with two parts exchanged",
    (parts) => parts.splice(1, 2, parts[2], parts[1]),
    /part 3 of 3, by/,
  ],
  [
    "with a part twice",
    (parts) => parts[2] = parts[1],
    /it is part 2 of 3, by its name it is part 3/,
  ],
  [
    "with a part of another model",
    (parts) => parts[2] = part(2, ["blk.0.ffn_norm.weight"], { "split.count": ["u16", 4] }),
    /it is part 3 of 4, by its name it is part 3 of 3/,
  ],
  [
    "with a tensor in two parts",
    (parts) => parts[2] = part(2, ["output_norm.weight"]),
    /an earlier part has "output_norm\.weight" as well/,
  ],
  ["that lacks a tensor", (parts) => parts[2] = part(2, []), /must have 4 tensors together: .* 3$/],
  [
    "that says a number that is none",
    (parts) => parts[2] = part(2, ["blk.0.ffn_norm.weight"], { "split.no": ["string", "2"] }),
    /split\.no must be a non-negative integer/,
  ],
];

for (const [what, edit, message] of FAULTS) {
  Deno.test(`a split model ${what} is refused, and its files are closed`, () => {
    const parts: (TestFile | null)[] = partsOf();
    edit(parts);
    return opening(parts, nameOf(0), (open) =>
      assert.rejects(open(), (error: Error) => {
        assert.ok(error instanceof CheckpointError, String(error));
        assert.match(error.message, message);
        return true;
      }));
  });
}

Deno.test("names that say more parts than there can be are refused before any is looked for", () =>
  withFolder({ "m-00001-of-99999.gguf": "", "m-00001-of-00000.gguf": "" }, async (folder) => {
    for (const [name, parts] of [["m-00001-of-99999.gguf", 99999], ["m-00001-of-00000.gguf", 0]]) {
      await assert.rejects(openCheckpoint(join(folder, String(name))), {
        name: "CheckpointError",
        message: new RegExp(`is split in 1 to 1000 files: its name says ${parts}$`),
      });
    }
  }));
