import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { fixturePath } from "../tests/fixtures.ts";
import { withFolder } from "../tests/safetensors_file.ts";
import {
  fixtureTokenizer,
  TOKENIZER_NAMES,
  tokenizerJson,
  tokenizerVectors,
} from "../tests/tokenizer_fixtures.ts";
import { BYTE_CHARACTERS } from "./byte_level.ts";
import { CheckpointError, UnsupportedModelError } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { createPreTokenizer } from "./pre_tokenizer.ts";
import { checkTokenizerFits, createTokenizer, loadTokenizer } from "./tokenizer.ts";

const utf8 = new TextEncoder();

for (const name of TOKENIZER_NAMES) {
  Deno.test(`${name} encodes and decodes all vectors`, () => {
    const tokenizer = fixtureTokenizer(name);
    const vectors = tokenizerVectors(name);
    assert.equal(vectors.length, 280);
    for (const vector of vectors) {
      const { text, ids, text_used = text, ids_no_bos = ids, ids_plain = ids_no_bos } = vector;
      const what = `${vector.i} ${vector.category}`;
      const bare = { addSpecialTokens: false };
      assert.deepEqual(tokenizer.encode(text), ids, what);
      assert.deepEqual(tokenizer.encode(text, bare), ids_no_bos, what);
      assert.deepEqual(tokenizer.encode(text, { ...bare, parseSpecial: false }), ids_plain, what);
      const { decoded, decoded_skip_special: skipped } = vector;
      assert.equal(tokenizer.decode(ids_no_bos), decoded === true ? text_used : decoded, what);
      const withoutSpecial = tokenizer.decode(ids, { skipSpecialTokens: true });
      assert.equal(withoutSpecial, skipped === true ? text_used : skipped, what);
    }
  });

  Deno.test(`${name} agrees with the library on other texts`, () => {
    const tokenizer = fixtureTokenizer(name);
    const library = new LibraryTokenizer(tokenizerJson(name) as object, {});
    const text = readFileSync(fixturePath("tokenizers/llama3/vectors.json"), "utf8").slice(
      0,
      20_000,
    );
    for (const sample of [text, ...CORPUS_SAMPLES]) {
      assert.deepEqual(tokenizer.encode(sample), library.encode(sample).ids);
    }
    const anyText = fc.string({ unit: fc.constantFrom(..." \n'aeis.,!19é世🙂<|>"), maxLength: 60 });
    fc.assert(
      fc.property(anyText, (sample) => {
        assert.deepEqual(tokenizer.encode(sample), library.encode(sample).ids);
      }),
      { numRuns: 300 },
    );
  });

  Deno.test(`${name} decodes what it encodes`, () => {
    const tokenizer = fixtureTokenizer(name);
    const options = { addSpecialTokens: false, parseSpecial: false };
    // Falcon's vocabulary lacks the characters of some bytes that its training never met.
    const isKnown = (byte: number) => tokenizer.tokenId(BYTE_CHARACTERS[byte]) !== null;
    const isSpelled = (text: string) => name === "llama2" || [...utf8.encode(text)].every(isKnown);
    const text = fc.string({ unit: fc.string({ unit: "binary", maxLength: 2 }).filter(isSpelled) });
    fc.assert(
      fc.property(text, (sample) => {
        const ids = tokenizer.encode(sample, options);
        assert.equal(tokenizer.decode(ids), sample.toWellFormed());
      }),
      { numRuns: 300 },
    );
  });

  Deno.test(`${name} is quick on long runs of anything`, () => {
    const tokenizer = fixtureTokenizer(name);
    tokenizer.encode("warm up: builds the merges");
    for (const unit of ["a", " ", "\n", "!", "1", "ab", "é", "🙂", " the", "<|", "\u0301"]) {
      const text = unit.repeat(100_000 / unit.length);
      const start = performance.now();
      const ids = tokenizer.encode(text);
      const elapsedMs = performance.now() - start;
      assert.ok(elapsedMs < 3000, `${JSON.stringify(unit)} took ${elapsedMs} ms`);
      assert.ok(ids.length > 0);
    }
  });
}

const CORPUS_SAMPLES = readdirSync(fixturePath("corpus"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".txt"))
  .slice(0, 3)
  .map((file) => readFileSync(join(fixturePath("corpus"), file), "utf8").slice(0, 10_000));

Deno.test("the fixture models' own tokenizers load and know their special tokens", async () => {
  for (const name of readdirSync(fixturePath("models"))) {
    const folder = fixturePath(`models/${name}`);
    const tokenizer = await loadTokenizer(folder);
    const { vocab_size } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    checkTokenizerFits(tokenizer, vocab_size);
    const manifest = JSON.parse(readFileSync(join(folder, "expected/manifest.json"), "utf8"));
    const texts = (manifest.sequences ?? []).filter((each: JsonObject) =>
      /text/.test(each.name as string)
    );
    for (const { name: what, input_ids } of texts) {
      const text = tokenizer.decode(input_ids, { skipSpecialTokens: true });
      assert.deepEqual(tokenizer.encode(text), input_ids, `${name} ${what}`);
    }
    const ids = tokenizer.encode("Once upon a time");
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), "Once upon a time");
  }
});

Deno.test("tokens have text, id, bytes and kind", () => {
  const llama3 = fixtureTokenizer("llama3");
  assert.equal(llama3.vocabSize, 128256);
  assert.equal(llama3.tokenText(128009), "<|eot_id|>");
  assert.equal(llama3.tokenId("<|eot_id|>"), 128009);
  assert.equal(llama3.isSpecial(128009), true);
  const [id] = llama3.encode(" é", { addSpecialTokens: false });
  assert.deepEqual([...llama3.tokenBytes(id)], [0x20, 0xc3, 0xa9]);
  assert.equal(llama3.isSpecial(id), false);
  for (const none of [-1, 1.5, NaN, 128256, 1e9]) {
    assert.equal(llama3.tokenText(none), null);
    assert.equal(llama3.tokenBytes(none).length, 0);
  }
  assert.equal(llama3.tokenId("no such token"), null);
  const llama2 = fixtureTokenizer("llama2");
  assert.deepEqual([...llama2.tokenBytes(llama2.tokenId("<0x0A>")!)], [10]);
  assert.deepEqual([...llama2.tokenBytes(llama2.tokenId("▁the")!)], [
    ...new TextEncoder().encode(" the"),
  ]);
});

Deno.test("a byte run that is no UTF-8 decodes as the reference does", () => {
  const llama2 = fixtureTokenizer("llama2");
  const bytes = (...values: number[]) => values.map((value) => 3 + value);
  assert.equal(llama2.decode(bytes(0xe4, 0xbd, 0xa0)), "你");
  // One bad byte spoils its whole run, and each byte of it is a replacement character.
  assert.equal(llama2.decode(bytes(0xe4, 0xbd, 0xa0, 0xff)), "\ufffd".repeat(4));
  const llama3 = fixtureTokenizer("llama3");
  const byteLevel = (value: number) => llama3.tokenId(value === 0xe4 ? "ä" : "½")!;
  assert.equal(llama3.decode([byteLevel(0xe4), byteLevel(0xbd)]), "\ufffd");
});

for (const name of ["llama3", "falcon"] as const) {
  Deno.test(`${name}: any ids decode to their bytes, read as UTF-8`, () => {
    const tokenizer = fixtureTokenizer(name);
    const id = fc.oneof(fc.nat(300), fc.nat(tokenizer.vocabSize - 1));
    fc.assert(
      fc.property(fc.array(id), (ids) => {
        const bytes = Uint8Array.from(ids.flatMap((each) => [...tokenizer.tokenBytes(each)]));
        const expected = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
        assert.equal(tokenizer.decode(ids), expected);
      }),
      { numRuns: 300 },
    );
  });
}

Deno.test("white space and digits are Unicode's, not JavaScript's", () => {
  const falcon = fixtureTokenizer("falcon");
  const bare = { addSpecialTokens: false };
  // U+FEFF is white space to JavaScript only, U+0085 to Unicode only.
  const alone = falcon.encode("\u0085", bare).length;
  assert.equal(falcon.encode(".\u0085", bare).length, 1 + alone);
  assert.equal(falcon.encode("\ufeffa", bare).length, falcon.encode("\ufeff", bare).length + 1);
});

/** The smallest tokenizer there can be, with some sections changed. */
function tiny(change: JsonObject = {}, model: JsonObject = {}): JsonObject {
  return {
    added_tokens: [{ id: 4, content: "<s>", special: true }],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "ByteLevel" },
    model: {
      type: "BPE",
      vocab: { a: 0, b: 1, ab: 2, "<x>": 3 },
      merges: ["a b"],
      ...model,
    },
    ...change,
  };
}

Deno.test("added tokens: longest first, stripped sides, single words, special or not", () => {
  const tokens: Json = [
    { id: 4, content: "<s>", special: true },
    { id: 5, content: "<s>a", special: false },
    { id: 6, content: "L", special: false, lstrip: true },
    { id: 7, content: "R", special: false, rstrip: true },
    { id: 8, content: "W", special: false, single_word: true },
  ];
  const tokenizer = createTokenizer(
    tiny({ added_tokens: tokens }, { vocab: { a: 0, b: 1, ab: 2, " ": 9 } }),
  );
  assert.deepEqual(tokenizer.encode("<s>ab"), [5, 1]);
  assert.deepEqual(tokenizer.encode("<s>b<s>"), [4, 1, 4]);
  assert.deepEqual(tokenizer.encode("a L a"), [0, 6, 9, 0]);
  assert.deepEqual(tokenizer.encode("a R a"), [0, 9, 7, 0]);
  assert.deepEqual(tokenizer.encode("a W aW"), [0, 9, 8, 9, 0]);
  assert.deepEqual(tokenizer.encode("<s>b<s>a", { parseSpecial: false }), [1, 5]);
});

Deno.test("BOS follows the template, and the Llama classes' flags", () => {
  const post_processor: Json = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
    special_tokens: { "<s>": { id: "<s>", ids: [4] } },
  };
  assert.deepEqual(createTokenizer(tiny({ post_processor })).encode("ab"), [4, 2]);
  const llama = (flags: JsonObject) => ({
    tokenizer_class: "LlamaTokenizer",
    bos_token: "<s>",
    ...flags,
  });
  const ids = (flags: JsonObject) =>
    createTokenizer(tiny({ post_processor }), llama(flags)).encode("ab");
  assert.deepEqual(ids({}), [4, 2]);
  assert.deepEqual(ids({ add_bos_token: false }), [2]);
  assert.deepEqual(createTokenizer(tiny(), llama({ add_bos_token: true })).encode("ab"), [4, 2]);
  const other = { tokenizer_class: "PreTrainedTokenizerFast", add_bos_token: false };
  assert.deepEqual(createTokenizer(tiny({ post_processor }), other).encode("ab"), [4, 2]);
});

Deno.test("Metaspace splits before its mark and marks the start", () => {
  const vocab = { "▁": 0, a: 1, "▁a": 2, b: 3, "a▁": 4 };
  const merges = ["▁ a", "a ▁"];
  const ids = (section: JsonObject, text: string) =>
    createTokenizer(tiny({ pre_tokenizer: { type: "Metaspace", ...section } }, { vocab, merges }))
      .encode(text);
  assert.deepEqual(ids({ prepend_scheme: "always" }, "a a"), [2, 2]);
  assert.deepEqual(ids({ prepend_scheme: "never" }, "a a"), [1, 2]);
  assert.deepEqual(ids({ prepend_scheme: "first" }, "a<s>a"), [2, 4, 1]);
  assert.deepEqual(ids({ prepend_scheme: "never", split: false }, "a b"), [4, 3]);
});

for (
  const [what, json, message, type] of [
    ["no object", [], /must be an object with a model/],
    ["no model", {}, /must be an object with a model/],
    ["a Unigram model", tiny({}, { type: "Unigram" }), /must be "BPE".*"Unigram"/, true],
    ["dropout", tiny({}, { dropout: 0.1 }), /dropout must be absent/, true],
    ["a suffix", tiny({}, { end_of_word_suffix: "</w>" }), /end_of_word_suffix/, true],
    ["no vocab", tiny({}, { vocab: null }), /vocab must be an object/],
    ["a negative id", tiny({}, { vocab: { a: -1 } }), /id of "a".*current value is -1/],
    ["a huge id", tiny({}, { vocab: { a: 1e15 } }), /id of "a"/],
    ["a text id", tiny({}, { vocab: { a: "0" } }), /id of "a"/],
    ["no merges", tiny({}, { merges: 3 }), /merges must be a list/],
    ["added tokens that are no list", tiny({ added_tokens: {} }), /added_tokens must be a list/],
    ["an added token without id", tiny({ added_tokens: [{ content: "x" }] }), /added_tokens/],
    [
      "an added token of a huge id",
      tiny({ added_tokens: [{ id: 1e15, content: "x" }] }),
      /added_tokens .*1000000000000000/,
    ],
    ["an unknown normalizer", tiny({ normalizer: { type: "Magic" } }), /normalizer.*Magic/, true],
    ["an unknown pre_tokenizer", tiny({ pre_tokenizer: { type: "Magic" } }), /"Magic"/, true],
    [
      "a normalizer without a pattern that is known",
      tiny({ normalizer: { type: "Replace", pattern: { Text: " " }, content: "_" } }),
      /pattern must be .*Text/,
    ],
    [
      "a text of too many levels",
      tiny({ normalizer: JSON.parse('{"normalizers":['.repeat(80) + "]}".repeat(80)) }),
      /nests deeper than 64/,
    ],
    [
      "an added token that is a book",
      tiny({ added_tokens: [{ id: 9, content: "x".repeat(2000) }] }),
      /at most 1024 characters/,
    ],
    ["a pre_tokenizer that is text", tiny({ pre_tokenizer: "x" }), /pre_tokenizer is malformed/],
    [
      "a broken pattern",
      tiny({
        pre_tokenizer: { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" },
      }),
      /pattern is not understood/,
      true,
    ],
    [
      "a split that merges",
      tiny({
        pre_tokenizer: { type: "Split", pattern: { Regex: "x" }, behavior: "MergedWithNext" },
      }),
      /Split by .*"x".* with behavior "MergedWithNext"/,
      true,
    ],
    ["an unknown decoder", tiny({ decoder: { type: "CTC" } }), /decoder is not known/, true],
    [
      "a decoder that strips the end",
      tiny({
        decoder: {
          type: "Sequence",
          decoders: [{ type: "Fuse" }, { type: "Strip", content: " ", start: 0, stop: 1 }],
        },
      }),
      /decoder is not known/,
      true,
    ],
    ["an unknown post_processor", tiny({ post_processor: { type: "Magic" } }), /"Magic"/, true],
    [
      "a template of unknown tokens",
      tiny({
        post_processor: {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "toString" } }],
          special_tokens: {},
        },
      }),
      /post_processor is malformed/,
    ],
  ] as readonly (readonly [string, Json, RegExp, boolean?])[]
) {
  Deno.test(`a tokenizer with ${what} is refused`, () => {
    assert.throws(() => createTokenizer(json), (error: Error) => {
      assert.ok(error instanceof (type ? UnsupportedModelError : CheckpointError), String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("a split by a text leaves it at the end or at the start of words", () => {
  const words = (behavior: string, literal: string, text: string) =>
    createPreTokenizer({ type: "Split", pattern: { String: literal }, behavior })(text, true);
  // What Python's tokenizers 0.23 gives.
  assert.deepEqual(words("MergedWithPrevious", " ", "a  b c "), ["a ", " ", "b ", "c "]);
  assert.deepEqual(words("MergedWithPrevious", "ab", "ab x abab"), ["ab", " x ab", "ab"]);
  assert.deepEqual(words("MergedWithNext", " ", "a  b c "), ["a", " ", " b", " c", " "]);
  assert.deepEqual(words("MergedWithNext", "ab", "ab x abab"), ["ab x ", "ab", "ab"]);
  assert.deepEqual(words("MergedWithPrevious", " ", ""), []);
});

Deno.test("merges that are none are refused when they are first needed", () => {
  for (const merge of ["a c", 3, ["a"], ["a", "b", "b"], [["a"], "b"], null]) {
    const tokenizer = createTokenizer(tiny({}, { merges: ["a b", merge] }));
    for (const _ of ["first", "second"]) {
      assert.throws(() => tokenizer.encode("ab"), /merge 1 must name two tokens/);
    }
  }
});

Deno.test("files: missing, SentencePiece only, damaged, of another model", async () => {
  await withFolder({}, async (folder) => {
    await assert.rejects(loadTokenizer(folder), /no such file: give a tokenizer.json/);
  });
  await withFolder({ "tokenizer.model": "x" }, async (folder) => {
    await assert.rejects(loadTokenizer(folder), /AutoTokenizer.save_pretrained/);
  });
  await assert.rejects(loadTokenizer("m.GGUF"), /"m.GGUF": there is no such file/);
  await withFolder({ "tokenizer.json": '{"model":' }, async (folder) => {
    await assert.rejects(loadTokenizer(folder), CheckpointError);
  });
  await withFolder({ "t.json": JSON.stringify(tiny()) }, async (folder) => {
    const tokenizer = await loadTokenizer(join(folder, "t.json"));
    assert.equal(tokenizer.vocabSize, 5);
    checkTokenizerFits(tokenizer, 5);
    assert.throws(() => checkTokenizerFits(tokenizer, 4), /ids up to 4, the model's .* has 4/);
  });
});

Deno.test("any change of a tokenizer.json is an error of ours or a tokenizer that works", () => {
  const file = fixturePath("models/falcon3-158-packed/tokenizer.json");
  const sound = JSON.parse(readFileSync(file, "utf8")) as JsonObject;
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom({ type: "ByteLevel" }, { type: "Sequence" }, { type: "Metaspace" }),
    fc.constantFrom({ type: "Split" }, { type: "Strip" }, { type: "TemplateProcessing" }),
  );
  const inModel = Object.keys(sound.model as JsonObject);
  const key = fc.constantFrom(...Object.keys(sound), ...inModel.map((each) => `model.${each}`));
  fc.assert(
    fc.property(key, value, (where, changed) => {
      const json: JsonObject = { ...sound, model: { ...sound.model as JsonObject } };
      const [, inner] = where.split(".");
      if (inner === undefined) json[where] = changed as Json;
      else (json.model as JsonObject)[inner] = changed as Json;
      try {
        const tokenizer = createTokenizer(json);
        tokenizer.decode(tokenizer.encode("Once upon a time, 123 <|x|>"));
      } catch (error) {
        const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
        assert.ok(isOurs && !error.message.includes("\n"), String(error));
      }
    }),
    { numRuns: 400 },
  );
});
