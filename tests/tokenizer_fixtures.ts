/** The tokenizers of the conformance data, and what they must do. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import type { Json } from "../runtime/json.ts";
import { createTokenizer, type StreamingTokenizer } from "../runtime/tokenizer.ts";
import { fixturePath } from "./fixtures.ts";

export const TOKENIZER_NAMES = ["llama3", "llama2", "falcon"] as const;
export type TokenizerName = (typeof TOKENIZER_NAMES)[number];

/** A text with its ids, as Hugging Face's tokenizers has them. */
export interface TokenizerVector {
  i: number;
  category: string;
  text: string;
  /** `text` with lone surrogates replaced; only where it has some. */
  text_used?: string;
  ids: number[];
  /** Absent when equal to `ids`. */
  ids_no_bos?: number[];
  /** Special tokens as plain text; absent when equal to `ids_no_bos`. */
  ids_plain?: number[];
  /** True when equal to the text. */
  decoded: string | true;
  decoded_skip_special: string | true;
}

export function tokenizerJson(name: TokenizerName): Json {
  const bytes = readFileSync(fixturePath(`tokenizers/${name}/tokenizer.json.gz`));
  return JSON.parse(gunzipSync(bytes).toString());
}

const loaded = new Map<TokenizerName, StreamingTokenizer>();

/** Loaded once, as it takes a while. */
export function fixtureTokenizer(name: TokenizerName): StreamingTokenizer {
  const tokenizer = loaded.get(name) ?? createTokenizer(tokenizerJson(name));
  loaded.set(name, tokenizer);
  return tokenizer;
}

export function tokenizerVectors(name: TokenizerName): TokenizerVector[] {
  const file = fixturePath(`tokenizers/${name}/vectors.json`);
  return JSON.parse(readFileSync(file, "utf8")).vectors;
}
