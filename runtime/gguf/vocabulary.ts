/** The vocabulary in a GGUF file's keys. */
import { CheckpointError, shown } from "../errors.ts";
import type { Json, JsonObject } from "../json.ts";
import { KeyReader } from "./keys.ts";
import { type GgufArray, type GgufValue, isArray, type Metadata } from "./values.ts";

/** What all keys of a tokenizer begin with. */
export const TOKENIZER_KEYS = "tokenizer.ggml.";
/** The same limit as for a model's vocab_size. */
const MAX_TOKENS = 10_000_000;

/** Kinds of tokens. */
export const NORMAL = 1;
export const UNKNOWN = 2;
export const CONTROL = 3;
export const USER_DEFINED = 4;
export const BYTE = 6;

/** A vocabulary as the file has it. */
export interface Vocabulary {
  tokens: string[];
  /** One a token, as llama.cpp numbers kinds. */
  kinds: readonly number[];
  keys: KeyReader;
}

/** What differs between the kinds of tokenizers. */
export interface TokenizerParts {
  model: JsonObject;
  normalizer: Json;
  preTokenizer: Json;
  decoder: Json;
  /** Whether texts begin with the BOS token where the file does not say. */
  addsBos: boolean;
}

/** @throws {CheckpointError} If its lists are malformed. */
export function vocabularyOf(metadata: Metadata): Vocabulary {
  const keys = new KeyReader(metadata, TOKENIZER_KEYS);
  const tokens = strings(metadata, "tokens");
  const kinds = metadata.has(`${TOKENIZER_KEYS}token_type`)
    ? numbers(metadata, "token_type", tokens.length)
    : kindsByLook(tokens, keys);
  return { tokens, kinds, keys };
}

const MARKER = /^<\|.*\|>$/;
const BYTE_TOKEN = /^<0x[0-9A-F]{2}>$/;
const MARKER_KEYS = ["bos", "eos", "eot", "eom", "padding"].map((name) => `${name}_token_id`);

/** Files may leave the kinds out: then they are told by what tokens look like, and what keys name. */
function kindsByLook(tokens: readonly string[], keys: KeyReader): number[] {
  const markers = new Set(MARKER_KEYS.map((key) => keys.count(key)));
  const unknown = keys.count("unknown_token_id");
  return tokens.map((token, id) => {
    if (id === unknown) return UNKNOWN;
    if (markers.has(id) || MARKER.test(token)) return CONTROL;
    return BYTE_TOKEN.test(token) ? BYTE : NORMAL;
  });
}

export function strings(metadata: Metadata, key: string): string[] {
  return listOf(metadata, key, "string").values() as string[];
}

/** A list of a vocabulary's size. */
export function numbers(metadata: Metadata, key: string, length: number): number[] {
  const list = listOf(metadata, key, "number");
  if (list.length === length) return list.values() as number[];
  throw new CheckpointError(
    `Cannot read the tokenizer: ${TOKENIZER_KEYS}${key} must have ${length} elements, as many as tokens: ` +
      `current value is ${list.length}`,
  );
}

const NUMBER_TYPES = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "f64"];

function listOf(metadata: Metadata, key: string, kind: "string" | "number"): GgufArray {
  const value: GgufValue | undefined = metadata.get(TOKENIZER_KEYS + key);
  const isRight = isArray(value) && value.length <= MAX_TOKENS &&
    (kind === "string" ? value.type === "string" : NUMBER_TYPES.includes(value.type));
  if (isRight) return value;
  const found = isArray(value) ? `a list of ${value.length} of ${value.type}` : shown(value);
  throw new CheckpointError(
    `Cannot read the tokenizer: ${TOKENIZER_KEYS}${key} must be a list of ${kind}s, at most ` +
      `${MAX_TOKENS}: current value is ${found}`,
  );
}

/**
 * Ids by spelling; no prototype, so that a token `__proto__` is only a token. Empty ones, of which files
 * may have several, are spelled as llama.cpp spells them.
 */
export function vocabOf(tokens: readonly string[]): JsonObject {
  const vocab: JsonObject = Object.create(null);
  for (const [id, found] of tokens.entries()) {
    const token = found === "" ? `[EMPTY_${id}]` : found;
    if (token in vocab) {
      throw new CheckpointError(
        `Cannot read the tokenizer: tokens ${vocab[token]} and ${id} are both ${shown(token)}`,
      );
    }
    vocab[token] = id;
  }
  return vocab;
}
