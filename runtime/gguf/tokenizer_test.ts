import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { fixturePath } from "../../tests/fixtures.ts";
import { ggufFile, type TestValue } from "../../tests/gguf_builder.ts";
import { withFolder } from "../../tests/safetensors_file.ts";
import {
  fixtureTokenizer,
  type TokenizerName,
  tokenizerVectors,
} from "../../tests/tokenizer_fixtures.ts";
import { join } from "node:path";
import { loadChatTemplate } from "../chat_template.ts";
import { CheckpointError, UnsupportedModelError } from "../errors.ts";
import { loadTokenizer, readTokenizer, type StreamingTokenizer } from "../tokenizer.ts";
import { memoryBytes } from "../byte_source.ts";
import { readHeader } from "./header.ts";
import { ggufCompanions } from "./tokenizer.ts";

async function companionsOf(bytes: Uint8Array) {
  return ggufCompanions((await readHeader(memoryBytes(bytes, "m.gguf"))).metadata, "m.gguf");
}

async function tokenizerOf(bytes: Uint8Array): Promise<StreamingTokenizer> {
  return await readTokenizer(await companionsOf(bytes));
}

const FILES: Readonly<Record<TokenizerName, string>> = {
  llama3: "ggml-vocab-llama-bpe.gguf.gz",
  llama2: "ggml-vocab-llama-spm.gguf.gz",
  falcon: "ggml-vocab-falcon.gguf.gz",
};

for (const [name, file] of Object.entries(FILES) as [TokenizerName, string][]) {
  Deno.test(`the GGUF vocabulary of ${name} encodes and decodes all vectors`, async () => {
    const bytes = gunzipSync(readFileSync(fixturePath(`tokenizers/${name}/${file}`)));
    await withFolder({ "v.gguf": bytes }, async (folder) => {
      const tokenizer = await loadTokenizer(join(folder, "v.gguf"));
      const twin = fixtureTokenizer(name);
      const vectors = tokenizerVectors(name);
      assert.equal(vectors.length, 280);
      for (const { i, text, ids, ids_no_bos = ids, ids_plain = ids_no_bos } of vectors) {
        const bare = { addSpecialTokens: false };
        assert.deepEqual(tokenizer.encode(text), ids, `${i}`);
        assert.deepEqual(tokenizer.encode(text, bare), ids_no_bos, `${i}`);
        assert.deepEqual(
          tokenizer.encode(text, { ...bare, parseSpecial: false }),
          ids_plain,
          `${i}`,
        );
        assert.equal(tokenizer.decode(ids), twin.decode(ids), `${i}`);
        const skip = { skipSpecialTokens: true };
        assert.equal(tokenizer.decode(ids, skip), twin.decode(ids, skip), `${i}`);
      }
    });
  });
}

type Values = Record<string, TestValue>;

/** A vocabulary of a few byte-level tokens. */
const BPE: Values = {
  "tokenizer.ggml.model": ["string", "gpt2"],
  "tokenizer.ggml.pre": ["string", "qwen2"],
  "tokenizer.ggml.tokens": ["string", [
    "a",
    "b",
    "ab",
    "1",
    "2",
    "<|bos|>",
    "<|im_end|>",
    "<tool>",
  ]],
  "tokenizer.ggml.token_type": ["i32", [1, 1, 1, 1, 1, 3, 3, 4]],
  "tokenizer.ggml.merges": ["string", ["a b"]],
  "tokenizer.ggml.bos_token_id": ["u32", 5],
  "tokenizer.ggml.eos_token_id": ["u32", 6],
};

async function bpe(values: Values = {}): Promise<StreamingTokenizer> {
  return await tokenizerOf(ggufFile({ values: { ...BPE, ...values } }));
}

Deno.test("control tokens are special, user-defined ones are always matched", async () => {
  const tokenizer = await bpe();
  assert.deepEqual(tokenizer.encode("ab<|im_end|><tool>"), [2, 6, 7]);
  assert.deepEqual(tokenizer.encode("ab<tool>", { parseSpecial: false }), [2, 7]);
  assert.deepEqual([tokenizer.isSpecial(6), tokenizer.isSpecial(7)], [true, false]);
});

Deno.test("several tokens may be empty", async () => {
  const tokens = ["a", "b", "ab", "", "", "<|bos|>", "<|im_end|>", ""];
  const tokenizer = await bpe({ "tokenizer.ggml.tokens": ["string", tokens] });
  assert.deepEqual(tokenizer.encode("ab<|im_end|>"), [2, 6]);
  assert.equal(tokenizer.tokenText(4), "[EMPTY_4]");
});

Deno.test("a file without kinds of tokens: markers are told by their look and by keys", async () => {
  const { ["tokenizer.ggml.token_type"]: _, ...values } = BPE;
  const tokens = ["a", "b", "ab", "1", "2", "<s>", "<|im_end|>", "<tool>"];
  const own: Values = { ...values, "tokenizer.ggml.tokens": ["string", tokens] };
  const tokenizer = await tokenizerOf(ggufFile({ values: own }));
  assert.deepEqual(tokenizer.encode("ab<|im_end|><s>"), [2, 6, 5]);
  assert.deepEqual([5, 6, 7].map((id) => tokenizer.isSpecial(id)), [true, true, false]);
});

Deno.test("BOS and EOS come where the keys say so, else as the words' rules have it", async () => {
  assert.deepEqual((await bpe()).encode("ab"), [2]);
  assert.deepEqual((await bpe({ "tokenizer.ggml.add_bos_token": ["bool", true] })).encode("ab"), [
    5,
    2,
  ]);
  assert.deepEqual((await bpe({ "tokenizer.ggml.add_eos_token": ["bool", true] })).encode("ab"), [
    2,
    6,
  ]);
  const llama3: Values = { "tokenizer.ggml.pre": ["string", "llama-bpe"] };
  assert.deepEqual((await bpe(llama3)).encode("ab"), [5, 2]);
  const none: Values = { ...llama3, "tokenizer.ggml.add_bos_token": ["bool", false] };
  assert.deepEqual((await bpe(none)).encode("ab"), [2]);
});

Deno.test("a file that does not say how it cuts words cuts them as Llama 3", async () => {
  const { ["tokenizer.ggml.pre"]: _, ...values } = BPE;
  const tokenizer = await tokenizerOf(ggufFile({ values }));
  // A word that is a token stands for itself: no merge is asked for.
  const withWord: Values = { "tokenizer.ggml.merges": ["string", []] };
  const wordy = await tokenizerOf(ggufFile({ values: { ...values, ...withWord } }));
  assert.deepEqual([tokenizer.encode("ab"), wordy.encode("ab")], [[5, 2], [5, 2]]);
});

Deno.test("names of rules: digits of Qwen 2 stand alone, those of Llama 3 in threes", async () => {
  const digits: Values = {
    "tokenizer.ggml.tokens": ["string", ["1", "2", "12", "<|bos|>"]],
    "tokenizer.ggml.token_type": ["i32", [1, 1, 1, 3]],
    "tokenizer.ggml.merges": ["string", ["1 2"]],
    "tokenizer.ggml.bos_token_id": ["u32", 3],
    "tokenizer.ggml.eos_token_id": ["u32", 3],
  };
  const ids = async (pre: string) =>
    (await bpe({ ...digits, "tokenizer.ggml.pre": ["string", pre] }))
      .encode("12", { addSpecialTokens: false });
  for (const pre of ["qwen2", "qwen35", "starcoder"]) assert.deepEqual(await ids(pre), [0, 1], pre);
  for (const pre of ["llama3", "falcon3", "falcon_e", "gpt-2", "olmo", "falcon", "default"]) {
    assert.deepEqual(await ids(pre), [2], pre);
  }
  await assert.rejects(ids("tekken"), /tokenizer.ggml.pre "tekken" is not known: this version has/);
});

/** SentencePiece: scores say which join comes first. */
const SPM: Values = {
  "tokenizer.ggml.model": ["string", "llama"],
  "tokenizer.ggml.tokens": [
    "string",
    ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "c", "ab", "bc", "abc", "\u2581a", "<0x64>"],
  ],
  "tokenizer.ggml.scores": ["f32", [0, 0, 0, -9, -8, -7, -6, -5, -3, -4, -20, 0]],
  "tokenizer.ggml.token_type": ["i32", [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6]],
  "tokenizer.ggml.bos_token_id": ["u32", 1],
  "tokenizer.ggml.eos_token_id": ["u32", 2],
};

Deno.test("SentencePiece joins what has the highest score first", async () => {
  const tokenizer = await tokenizerOf(ggufFile({ values: SPM }));
  // bc (-3) before ab (-5); then abc.
  assert.deepEqual(tokenizer.encode("abc"), [1, 3, 9]);
  assert.deepEqual(tokenizer.encode("ab", { addSpecialTokens: false }), [3, 7]);
  assert.equal(tokenizer.decode([3, 9]), "abc");
  const prefix: Values = { "tokenizer.ggml.add_space_prefix": ["bool", false] };
  const bare = await tokenizerOf(ggufFile({ values: { ...SPM, ...prefix } }));
  assert.deepEqual(bare.encode("abc"), [1, 9]);
  assert.equal(bare.decode([3, 9]), " abc");
});

Deno.test("other tokenizers, and vocabularies that do not hold together, are refused", async () => {
  const refusals: [Values, RegExp][] = [
    [{ "tokenizer.ggml.model": ["string", "t5"] }, /"t5", which is a Unigram tokenizer/],
    [{ "tokenizer.ggml.model": ["string", "bert"] }, /"bert", which is a WordPiece tokenizer/],
    [
      { "tokenizer.ggml.model": ["string", "x"] },
      /must be "gpt2" or "llama": current value is "x"/,
    ],
    [
      { "tokenizer.ggml.tokens": ["u32", 3] },
      /tokens must be a list of strings.*current value is 3/,
    ],
    [{ "tokenizer.ggml.tokens": ["u32", [3]] }, /current value is a list of 1 of u32/],
    [{ "tokenizer.ggml.token_type": ["i32", [1]] }, /token_type must have 8 elements.*is 1/],
    [{ "tokenizer.ggml.merges": ["string", ["a c"]] }, /merge 0 must name two tokens/],
    [
      { "tokenizer.ggml.bos_token_id": ["u32", 8] },
      /bos_token_id must be below 8: current value is 8/,
    ],
    [
      { "tokenizer.ggml.bos_token_id": ["string", "x"] },
      /bos_token_id must be a non-negative integer/,
    ],
    [{ "tokenizer.ggml.add_bos_token": ["u32", 1] }, /add_bos_token must be true or false/],
    [{ "tokenizer.ggml.tokens": ["string", Array(8).fill("a")] }, /tokens 0 and 1 are both "a"/],
  ];
  for (const [values, message] of refusals) {
    await assert.rejects(async () => (await bpe(values)).encode("ab"), (error: Error) => {
      assert.ok(error instanceof CheckpointError || error instanceof UnsupportedModelError);
      assert.match(error.message, message);
      return true;
    });
  }
  const { ["tokenizer.ggml.scores"]: _, ...scoreless } = SPM;
  await assert.rejects(
    tokenizerOf(ggufFile({ values: scoreless })),
    /scores must be a list of numbers/,
  );
  await assert.rejects(tokenizerOf(ggufFile({})), /tokenizer.json": there is no such file/);
});

Deno.test("what stops a text: the ends that keys name, and those of the chat's turns", async () => {
  const end = async (values: Values) =>
    (await companionsOf(ggufFile({ values: { ...BPE, ...values } }))).json(
      "generation_config.json",
    );
  assert.deepEqual(await end({}), { eos_token_id: [6], bos_token_id: 5 });
  const keys: Values = {
    "tokenizer.ggml.eos_token_id": ["u32", 3],
    "tokenizer.ggml.eot_token_id": ["u32", 4],
    "tokenizer.ggml.padding_token_id": ["u32", 0],
  };
  const expected = { bos_token_id: 5, pad_token_id: 0 };
  assert.deepEqual(await end(keys), { ...expected, eos_token_id: [3, 4] });
  const template: Values = { "tokenizer.chat_template": ["string", "{{ x }}<|im_end|>"] };
  assert.deepEqual(await end({ ...keys, ...template }), { ...expected, eos_token_id: [3, 4, 6] });
  // A chat's end of turn may be the only one that is named: texts end too.
  const tokens: Values = {
    "tokenizer.ggml.tokens": ["string", ["a", "b", "ab", "1", "2", "<eos>", "<|im_end|>", "c"]],
  };
  assert.deepEqual(await end(tokens), { eos_token_id: [6, 5], bos_token_id: 5 });
});

Deno.test("SentencePiece tokens of one score: ids decide, runs of spaces grow from the left", async () => {
  const tokens = ["<unk>", "<s>", "\u2581", "a", "\u2581a", "aa", "b"];
  const runs = [2, 3, 4, 5].map((length) => "\u2581".repeat(length));
  const values = (scores: number[]): Values => ({
    ...SPM,
    "tokenizer.ggml.tokens": ["string", [...tokens, ...runs]],
    "tokenizer.ggml.token_type": ["i32", [2, 3, ...Array(9).fill(1)]],
    "tokenizer.ggml.scores": ["f32", scores],
    "tokenizer.ggml.add_space_prefix": ["bool", false],
  });
  const ids = async (text: string, scores: number[]) => {
    const tokenizer = await tokenizerOf(ggufFile({ values: values(scores) }));
    return tokenizer.encode(text, { addSpecialTokens: false }).map((id) => tokenizer.tokenText(id));
  };
  const same = Array(11).fill(-1000);
  assert.deepEqual(await ids(" ".repeat(7), same), [runs[3], runs[0]]);
  assert.deepEqual(await ids("  aa", same), ["\u2581", "\u2581a", "a"]);
  const runsFirst = same.with(7, -1);
  assert.deepEqual(await ids("  aa", runsFirst), [runs[0], "aa"]);
});

Deno.test("chat templates: the default one, and others by name", async () => {
  const template = async (values: Values) =>
    await loadChatTemplate(await companionsOf(ggufFile({ values: { ...BPE, ...values } })));
  const messages = [{ role: "user" as const, content: "hi" }];
  const one: Values = {
    "tokenizer.chat_template": [
      "string",
      "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    ],
  };
  assert.equal((await template(one))!.render(messages), "<|bos|>hi<|im_end|>");
  const two: Values = { ...one, "tokenizer.chat_template.tool_use": ["string", "tools"] };
  assert.equal((await template(two))!.render(messages), "<|bos|>hi<|im_end|>");
  assert.equal((await template(two))!.render(messages, { tools: [{}] }), "tools");
  assert.equal(await template({}), null);
});
