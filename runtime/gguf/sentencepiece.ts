/**
 * SentencePiece vocabularies of GGUF files (tokenizer.ggml.model "llama") as BPE. llama.cpp joins
 * the neighbours whose join has the highest score, leftmost first; so every way to cut a token in two
 * tokens is a merge, and those of the highest score come first.
 *
 * Sources: llama.cpp's llama-vocab.cpp (llm_tokenizer_spm); transformers' convert_slow_tokenizer.py.
 */
import type { Json } from "../json.ts";
import {
  BYTE,
  CONTROL,
  numbers,
  type TokenizerParts,
  UNKNOWN,
  vocabOf,
  type Vocabulary,
} from "./vocabulary.ts";

const MARK = "\u2581";
/** Longer tokens than any vocabulary has: they would take quadratic time. */
const MAX_TOKEN_LENGTH = 512;

export function sentencePieceParts(vocabulary: Vocabulary): TokenizerParts {
  const { tokens, keys } = vocabulary;
  const scores = numbers(keys.metadata, "scores", tokens.length);
  const addsPrefix = keys.flag("add_space_prefix") ?? true;
  const unknown = keys.count("unknown_token_id") ?? 0;
  const replace: Json = { type: "Replace", pattern: { String: " " }, content: MARK };
  const prepend: Json[] = addsPrefix ? [{ type: "Prepend", prepend: MARK }] : [];
  return {
    model: {
      type: "BPE",
      dropout: null,
      unk_token: tokens[unknown] ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: vocabOf(tokens),
      merges: mergesOf(vocabulary, scores),
    },
    normalizer: { type: "Sequence", normalizers: [...prepend, replace] },
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: MARK }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(addsPrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    addsBos: true,
  };
}

interface Merge {
  score: number;
  /** Characters of what it makes if that is white space alone, else 0. */
  runLength: number;
  left: string;
  right: string;
}

/**
 * All ways to make a token of two, those of tokens with higher scores first. Of the same score, as
 * converters give it to tokens that were added, and some to all, ids decide, which follow the order in
 * which merges were learnt. Only runs of white space come last and the longest first: that grows them from the
 * left, as llama.cpp does.
 */
function mergesOf({ tokens, kinds }: Vocabulary, scores: readonly number[]): Json[] {
  const isPart = (id: number) => ![CONTROL, UNKNOWN, BYTE].includes(kinds[id]);
  const parts = new Set(tokens.filter((_, id) => isPart(id)));
  const merges: Merge[] = [];
  for (const [id, token] of tokens.entries()) {
    if (!isPart(id) || token.length > MAX_TOKEN_LENGTH) continue;
    const runLength = runLengthOf(token);
    for (const [left, right] of cuts(token)) {
      if (!parts.has(left) || !parts.has(right)) continue;
      merges.push({ score: scores[id], runLength, left, right });
    }
  }
  // Stable: cuts of one token stay in order.
  merges.sort((a, b) => b.score - a.score || runOrder(a) - runOrder(b));
  return merges.map(({ left, right }) => [left, right]);
}

const SPACES = /^[\u2581\s]+$/;

function runLengthOf(token: string): number {
  return SPACES.test(token) ? token.length : 0;
}

function runOrder({ runLength }: Merge): number {
  return runLength === 0 ? -Infinity : -runLength;
}

/** Every cut between two characters, the shortest left part first. */
function* cuts(token: string): Generator<[string, string]> {
  let at = 0;
  for (const character of token) {
    if (at > 0) yield [token.slice(0, at), token.slice(at)];
    at += character.length;
  }
}
