/**
 * tokenizer.json, tokenizer_config.json and generation_config.json from a GGUF file's
 * tokenizer.ggml.* keys.
 *
 * Sources: llama.cpp's llama-vocab.cpp for what the keys mean; Hugging Face's tokenizers for the form
 * in which it is said; see also `pre_tokenizers.ts` and `sentencepiece.ts`.
 */
import type { CompanionName, Companions } from "../companions.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import type { Json, JsonObject } from "../json.ts";
import { wholeTokenizer } from "../tokenizer_json.ts";
import { KeyReader } from "./keys.ts";
import { preTokenizerOf } from "./pre_tokenizers.ts";
import { sentencePieceParts } from "./sentencepiece.ts";
import type { Metadata } from "./values.ts";
import {
  CONTROL,
  strings,
  TOKENIZER_KEYS,
  type TokenizerParts,
  UNKNOWN,
  USER_DEFINED,
  vocabOf,
  type Vocabulary,
  vocabularyOf,
} from "./vocabulary.ts";

/**
 * The companions that a file has. Made when first asked for and kept, but for the tokenizer: a large one is
 * 100 MB of objects.
 */
export function ggufCompanions(metadata: Metadata, origin: string): Companions {
  const made = new Map<CompanionName, Json>();
  return {
    origin,
    // deno-lint-ignore require-await -- so that errors become rejections.
    async json(name) {
      const found = made.get(name) ?? companionOf(name, metadata);
      made.set(name, found);
      return found;
    },
    // deno-lint-ignore require-await
    async text(name) {
      const found = companionOf(name, metadata);
      return found === null ? null : JSON.stringify(found);
    },
    // deno-lint-ignore require-await
    async tokenizer() {
      const found = companionOf("tokenizer.json", metadata);
      return found === null ? null : wholeTokenizer(found);
    },
  };
}

function companionOf(name: CompanionName, metadata: Metadata): Json {
  switch (name) {
    case "tokenizer.json":
      return metadata.has(`${TOKENIZER_KEYS}model`) ? tokenizerJson(metadata) : null;
    case "tokenizer_config.json":
      return metadata.has(`${TOKENIZER_KEYS}model`) ? tokenizerConfig(metadata) : null;
    case "generation_config.json":
      return generationConfig(metadata);
    default:
      return null;
  }
}

/** @throws {CheckpointError | UnsupportedModelError} If it is malformed, or of another kind. */
export function tokenizerJson(metadata: Metadata): JsonObject {
  const vocabulary = vocabularyOf(metadata);
  const parts = partsOf(vocabulary);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary),
    normalizer: parts.normalizer,
    pre_tokenizer: parts.preTokenizer,
    post_processor: postProcessor(vocabulary, parts.addsBos),
    decoder: parts.decoder,
    model: parts.model,
  };
}

function partsOf(vocabulary: Vocabulary): TokenizerParts {
  const model = vocabulary.keys.string("model");
  if (model === "gpt2") return byteLevelParts(vocabulary);
  if (model === "llama") return sentencePieceParts(vocabulary);
  const kinds: Record<string, string> = { t5: "a Unigram", bert: "a WordPiece", rwkv: "an RWKV" };
  const kind = kinds[model ?? ""] ?? "another";
  throw new UnsupportedModelError(
    `Cannot read the tokenizer: tokenizer.ggml.model must be "gpt2" or "llama": current value is ` +
      `${shown(model)}, which is ${kind} tokenizer`,
  );
}

// ---------------------------------------------------------------- byte-level BPE

function byteLevelParts(vocabulary: Vocabulary): TokenizerParts {
  const { tokens, keys } = vocabulary;
  const pre = preTokenizerOf(keys.string("pre"));
  return {
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: vocabOf(tokens),
      merges: strings(keys.metadata, "merges"),
    },
    normalizer: pre.normalizer,
    preTokenizer: pre.preTokenizer,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    addsBos: pre.addsBos,
  };
}

// ---------------------------------------------------------------- what surrounds it

/** Control tokens, which only count where special tokens are parsed, and ones that always do. */
function addedTokens({ tokens, kinds }: Vocabulary): Json[] {
  const added: Json[] = [];
  for (const [id, content] of tokens.entries()) {
    const special = kinds[id] === CONTROL || kinds[id] === UNKNOWN;
    if (content === "" || (!special && kinds[id] !== USER_DEFINED)) continue;
    const token = { id, content, single_word: false, lstrip: false, rstrip: false };
    added.push({ ...token, normalized: false, special });
  }
  return added;
}

function postProcessor({ tokens, keys }: Vocabulary, addsBos: boolean): Json {
  const bos = tokenOf(keys, "bos_token_id", tokens);
  const eos = tokenOf(keys, "eos_token_id", tokens);
  const before = bos !== null && (keys.flag("add_bos_token") ?? addsBos) ? [bos] : [];
  const after = eos !== null && keys.flag("add_eos_token") === true ? [eos] : [];
  if (before.length + after.length === 0) return null;
  const special = ({ content }: NamedToken): Json => ({
    SpecialToken: { id: content, type_id: 0 },
  });
  const single = [
    ...before.map(special),
    { Sequence: { id: "A", type_id: 0 } },
    ...after.map(special),
  ];
  const specialTokens = [...before, ...after].map(({ id, content }): [string, Json] => [
    content,
    { id: content, ids: [id], tokens: [content] },
  ]);
  return {
    type: "TemplateProcessing",
    single,
    pair: single,
    special_tokens: Object.fromEntries(specialTokens),
  };
}

interface NamedToken {
  id: number;
  content: string;
}

function tokenOf(keys: KeyReader, key: string, tokens: readonly string[]): NamedToken | null {
  const id = keys.count(key);
  if (id === null) return null;
  const content = tokens[id] ?? keys.fail(key, `below ${tokens.length}`, id);
  return { id, content };
}

/** Names of templates beside the default one: tokenizer.chat_template.NAME. */
const NAMED_TEMPLATE = /^tokenizer\.chat_template\.(\w{1,64})$/;

function tokenizerConfig(metadata: Metadata): JsonObject {
  const { tokens, keys } = vocabularyOf(metadata);
  const named = (name: string, key: string): JsonObject => {
    const token = tokenOf(keys, key, tokens);
    return token === null ? {} : { [name]: token.content };
  };
  return {
    ...named("bos_token", "bos_token_id"),
    ...named("eos_token", "eos_token_id"),
    ...named("unk_token", "unknown_token_id"),
    ...named("pad_token", "padding_token_id"),
    ...chatTemplates(metadata),
  };
}

function chatTemplates(metadata: Metadata): JsonObject {
  const general = new KeyReader(metadata);
  const template = general.string("tokenizer.chat_template");
  const others = [...metadata.keys()].flatMap((key) => {
    const name = NAMED_TEMPLATE.exec(key)?.[1];
    return name === undefined ? [] : [{ name, template: general.string(key)! }];
  });
  if (others.length === 0) return template === null ? {} : { chat_template: template };
  const first = template === null ? [] : [{ name: "default", template }];
  return { chat_template: [...first, ...others] };
}

/** Ends of turns that files of chat models often leave to the reader, by their spelling. */
const TURN_ENDS = ["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"];
/** Ends of texts: files have one eos_token_id, which may be that of a turn. */
const TEXT_ENDS = ["<|end_of_text|>", "<|endoftext|>", "<eos>"];
const END_KEYS = ["eos_token_id", "eot_token_id", "eom_token_id"];

/**
 * Which tokens stop: the file's, those that its own chat template ends turns with, and those that end
 * texts.
 */
function generationConfig(metadata: Metadata): Json {
  const keys = new KeyReader(metadata, TOKENIZER_KEYS);
  const ends = new Set(END_KEYS.flatMap((key) => keys.count(key) ?? []));
  if (metadata.has(`${TOKENIZER_KEYS}model`)) {
    const { tokens } = vocabularyOf(metadata);
    const template = new KeyReader(metadata).string("tokenizer.chat_template") ?? "";
    const turnEnds = TURN_ENDS.filter((end) => template.includes(end));
    for (const end of [...turnEnds, ...TEXT_ENDS]) {
      const id = tokens.indexOf(end);
      // Some files have them as tokens like others.
      if (id >= 0) ends.add(id);
    }
  }
  const bos = keys.count("bos_token_id");
  const pad = keys.count("padding_token_id");
  return {
    ...(ends.size === 0 ? {} : { eos_token_id: [...ends] }),
    ...(bos === null ? {} : { bos_token_id: bos }),
    ...(pad === null ? {} : { pad_token_id: pad }),
  };
}
