/**
 * A tokenizer.json as the keys tokenizer.ggml.* of a GGUF file: byte-level BPE ("gpt2") and
 * SentencePiece-like BPE with byte fallback ("llama").
 *
 * Source: llama.cpp's gguf-py (constants.py) and llama-vocab.cpp, where `pre` chooses how text is cut.
 */
import type { Companions } from "../companions.ts";
import { CheckpointError, shown, UnsupportedModelError } from "../errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../json.ts";
import { mergePairs, type StreamingTokenizer, tokenContent } from "../tokenizer.ts";
import type { TokenizerJson } from "../tokenizer_json.ts";
import type { GenerationDefaults } from "../types.ts";
import type { GgufValue } from "./gguf_file.ts";

/** Kinds of tokens, by their numbers in GGUF. */
const NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6;

const BYTE_TOKEN = /^<0x[0-9A-F]{2}>$/;

export interface TokenizerSource {
  companions: Companions;
  tokenizer: StreamingTokenizer;
  defaults: GenerationDefaults;
  /** Rows of the embedding: each must have a token. */
  vocabSize: number;
  /** tokenizer.ggml.pre, where the person knows it better. */
  pre?: string;
}

/**
 * @throws {UnsupportedModelError} If llama.cpp has no tokenizer of that kind, or it can't be told which.
 */
export async function ggufTokenizer(source: TokenizerSource): Promise<GgufValue[]> {
  const parts = await source.companions.tokenizer();
  const config = await source.companions.json("tokenizer_config.json");
  const json = parts?.json;
  if (!isJsonObject(json) || !isJsonObject(json.model)) {
    throw new CheckpointError(
      "Cannot write the tokenizer: there is no tokenizer.json with a model",
    );
  }
  const isSentencePiece = json.model.byte_fallback === true;
  return [
    ["tokenizer.ggml.model", "string", isSentencePiece ? "llama" : "gpt2"],
    ["tokenizer.ggml.pre", "string", source.pre ?? (isSentencePiece ? "default" : preOf(json))],
    ...tokensOf(parts!, json, source.vocabSize),
    ...specialsOf(source, config),
    ...(isSentencePiece ? spacesOf(json) : []),
    ...await templateOf(source.companions, config),
  ];
}

/** Words that end with "'s" and the like, in any case: how the patterns of all these begin. */
const LLAMA3_PATTERN =
  /^\(\?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d\)\|\[\^\\r\\n\\p\{L\}\\p\{N\}\]\?\\p\{L\}\+\|\\p\{N\}(\{1,3\})?\|/;

/**
 * llama.cpp's name for how a tokenizer cuts text into words. Its "llama-bpe" and "smaug-bpe" cut
 * alike; the first also takes words whole that are tokens (ignore_merges).
 */
function preOf({ model, pre_tokenizer: section }: JsonObject): string {
  const stages = stagesOf(section);
  const pattern = stages.map(patternOf).find((each) => each !== null) ?? null;
  const types = stages.map(({ type }) => type).join(" ");
  const ignoresMerges = isJsonObject(model) && model.ignore_merges === true;
  const [, threeDigits] = LLAMA3_PATTERN.exec(pattern ?? "") ?? [null];
  if (types === "Split ByteLevel" && threeDigits !== null) {
    if (threeDigits === undefined) return "qwen2";
    return ignoresMerges ? "llama-bpe" : "smaug-bpe";
  }
  if (types === "Punctuation ByteLevel Digits Split") return "falcon";
  if (types === "ByteLevel") return "gpt-2";
  throw new UnsupportedModelError(
    "Cannot write the tokenizer: it is not known by which name llama.cpp has its pre_tokenizer " +
      `${shown(types)}: give it by --pre, such as --pre llama-bpe`,
  );
}

function stagesOf(section: Json | undefined): JsonObject[] {
  if (!isJsonObject(section)) return [];
  if (section.type !== "Sequence") return [section];
  return Array.isArray(section.pretokenizers) ? section.pretokenizers.filter(isJsonObject) : [];
}

function patternOf({ pattern }: JsonObject): string | null {
  return isJsonObject(pattern) && typeof pattern.Regex === "string" ? pattern.Regex : null;
}

/** Tokens by id, their kinds, and what says which join. */
function tokensOf(parts: TokenizerJson, json: JsonObject, vocabSize: number): GgufValue[] {
  const model = json.model as JsonObject;
  const isSentencePiece = model.byte_fallback === true;
  const tokens: string[] = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const kinds = new Array<number>(vocabSize).fill(UNUSED);
  const put = (id: Json | undefined, token: string, kind: number) => {
    if (typeof id !== "number" || !(id < vocabSize)) return;
    tokens[id] = token;
    kinds[id] = kind;
  };
  for (const piece of parts.vocab ?? []) {
    for (const token in piece) {
      put(piece[token], token, isSentencePiece && BYTE_TOKEN.test(token) ? BYTE : NORMAL);
    }
  }
  for (const added of (json.added_tokens ?? []) as JsonObject[]) {
    const isUnknown = isSentencePiece && added.content === model.unk_token;
    const kind = isUnknown ? UNKNOWN : added.special === true ? CONTROL : USER_DEFINED;
    put(added.id, String(added.content), kind);
  }
  return [
    ["tokenizer.ggml.tokens", "string", tokens],
    ...(isSentencePiece ? [scoresOf(tokens, parts)] : []),
    ["tokenizer.ggml.token_type", "int32", kinds],
    ...(isSentencePiece ? [] : [
      [
        "tokenizer.ggml.merges",
        "string",
        [...mergePairs(parts.merges ?? [])].map((pair) => pair.join(" ")),
      ],
    ] as const),
  ];
}

/**
 * SentencePiece joins the pair whose join has the best score, so earlier merges get better ones. What
 * no merge makes is worse than all: it is never joined.
 */
function scoresOf(tokens: readonly string[], parts: TokenizerJson): GgufValue {
  const ranks = new Map<string, number>();
  let rank = 0;
  for (const [left, right] of mergePairs(parts.merges ?? [])) {
    const joined = left + right;
    if (!ranks.has(joined)) ranks.set(joined, rank);
    rank++;
  }
  const scores = tokens.map((token) => -(ranks.get(token) ?? rank));
  return ["tokenizer.ggml.scores", "float32", scores];
}

function specialsOf({ tokenizer, defaults }: TokenizerSource, config: Json): GgufValue[] {
  const named = (key: string) => {
    const content = isJsonObject(config) ? tokenContent(config[key]) : null;
    return content === null ? null : tokenizer.tokenId(content);
  };
  const { before, after } = tokenizer.around;
  const bos = before[0] ?? named("bos_token") ?? defaults.bosTokenId;
  const eos = named("eos_token") ?? defaults.eosTokenIds[0] ?? null;
  // Further tokens that end: llama.cpp has a place for one.
  const turnEnd = defaults.eosTokenIds.find((id) => id !== eos) ?? null;
  const ids: [string, number | null][] = [
    ["bos_token_id", bos],
    ["eos_token_id", eos],
    ["eot_token_id", turnEnd],
    ["unknown_token_id", named("unk_token")],
    ["padding_token_id", named("pad_token") ?? defaults.padTokenId],
  ];
  return [
    ...ids.filter(([, id]) => id !== null)
      .map(([key, id]): GgufValue => [`tokenizer.ggml.${key}`, "uint32", id!]),
    ["tokenizer.ggml.add_bos_token", "bool", before.length > 0],
    ["tokenizer.ggml.add_eos_token", "bool", after.length > 0],
  ];
}

/** Whether a space is put before a text. */
function spacesOf({ normalizer, pre_tokenizer: preTokenizer }: JsonObject): GgufValue[] {
  const stages = [normalizer, preTokenizer].flatMap((section) => {
    const nested = isJsonObject(section) ? section.normalizers ?? section.pretokenizers : null;
    return Array.isArray(nested) ? nested : [section];
  }).filter((stage): stage is JsonObject => isJsonObject(stage ?? null));
  const isPrefixed = stages.some((stage) =>
    stage.type === "Prepend" ||
    (stage.type === "Metaspace" &&
      (stage.prepend_scheme ?? (stage.add_prefix_space === false ? "never" : "first")) !== "never")
  );
  return [["tokenizer.ggml.add_space_prefix", "bool", isPrefixed]];
}

async function templateOf(companions: Companions, config: Json): Promise<GgufValue[]> {
  const file = await companions.text("chat_template.jinja");
  const own = file ?? (isJsonObject(config) ? config.chat_template ?? null : null);
  if (typeof own === "string") return [["tokenizer.chat_template", "string", own]];
  const named = Array.isArray(own) ? own.filter(isJsonObject) : [];
  return named.filter(({ template }) => typeof template === "string").map(({ name, template }) => [
    name === "default" ? "tokenizer.chat_template" : `tokenizer.chat_template.${name}`,
    "string",
    template as string,
  ]);
}
