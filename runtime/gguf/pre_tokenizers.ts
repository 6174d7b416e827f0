/**
 * What tokenizer.ggml.pre stands for: how byte-level BPE tokenizers cut texts into words.
 *
 * Source: llama.cpp's llama-vocab.cpp, the names; the patterns are those of the models' own
 * tokenizer.json files.
 */
import { shown, UnsupportedModelError } from "../errors.ts";
import type { Json } from "../json.ts";

export interface PreTokenizerRules {
  preTokenizer: Json;
  normalizer: Json;
  /** A word that is a token stands for itself. */
  ignoreMerges: boolean;
  /** Whether texts begin with BOS where the file does not say. */
  addsBos: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

function words(letters: string, digits: string, marks: string): string {
  return `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?${letters}|${digits}| ?[^\\s${marks}\\p{N}]+[\\r\\n]*|${SPACES}`;
}

const LLAMA3 = words("\\p{L}+", "\\p{N}{1,3}", "\\p{L}");
const QWEN2 = words("\\p{L}+", "\\p{N}", "\\p{L}");
const QWEN35 = words("[\\p{L}\\p{M}]+", "\\p{N}", "\\p{L}\\p{M}");

function split(pattern: string): Json {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
}

function byteLevel(usesRegex: boolean): Json {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: usesRegex };
}

function sequence(...pretokenizers: Json[]): Json {
  return { type: "Sequence", pretokenizers };
}

function rules(preTokenizer: Json, more: Partial<PreTokenizerRules> = {}): PreTokenizerRules {
  return { preTokenizer, normalizer: null, ignoreMerges: false, addsBos: false, ...more };
}

const LLAMA3_RULES = rules(sequence(split(LLAMA3), byteLevel(false)), {
  ignoreMerges: true,
  addsBos: true,
});
/** Llama 3's words; their own tokenizers add no BOS. */
const FALCON3_RULES = { ...LLAMA3_RULES, addsBos: false };
const QWEN2_RULES = rules(sequence(split(QWEN2), byteLevel(false)), {
  normalizer: { type: "NFC" },
});
const GPT2_RULES = rules(byteLevel(true));
/** GPT-NeoX's own file normalises, which llama.cpp leaves out. */
const NEOX_RULES = rules(byteLevel(true), { normalizer: { type: "NFC" } });
const THREE_DIGITS = split("[0-9][0-9][0-9]");

const RULES: Readonly<Record<string, PreTokenizerRules>> = {
  llama3: LLAMA3_RULES,
  "llama-v3": LLAMA3_RULES,
  "llama-bpe": LLAMA3_RULES,
  falcon3: FALCON3_RULES,
  "falcon-h1": FALCON3_RULES,
  falcon_e: FALCON3_RULES,
  "falcon-e": FALCON3_RULES,
  "smaug-bpe": { ...LLAMA3_RULES, ignoreMerges: false, addsBos: false },
  dbrx: { ...LLAMA3_RULES, ignoreMerges: false, addsBos: false },
  qwen2: QWEN2_RULES,
  "deepseek-r1-qwen": QWEN2_RULES,
  "stablelm2": { ...QWEN2_RULES, normalizer: null },
  qwen35: rules(sequence(split(QWEN35), byteLevel(false)), { normalizer: { type: "NFC" } }),
  "gpt-2": GPT2_RULES,
  gpt2: GPT2_RULES,
  mpt: GPT2_RULES,
  "gpt-neox": NEOX_RULES,
  olmo: NEOX_RULES,
  starcoder: rules(sequence({ type: "Digits", individual_digits: true }, byteLevel(true))),
  smollm: rules(sequence({ type: "Digits", individual_digits: true }, byteLevel(true))),
  falcon: rules(sequence(
    { type: "Punctuation", behavior: "Contiguous" },
    byteLevel(true),
    { type: "Digits", individual_digits: false },
    THREE_DIGITS,
  )),
  default: rules(sequence(
    split("[\\p{P}\\$\\+<=>\\^~\\|]+"),
    byteLevel(true),
    { type: "Digits", individual_digits: false },
    THREE_DIGITS,
  )),
};

/**
 * @param pre Null where the file does not say: then it is Microsoft's BitNet, whose vocabulary is
 * Llama 3's.
 * @throws {UnsupportedModelError} If the name is none we know.
 */
export function preTokenizerOf(pre: string | null): PreTokenizerRules {
  const name = pre ?? "llama3";
  if (Object.hasOwn(RULES, name)) return RULES[name];
  throw new UnsupportedModelError(
    `Cannot read the tokenizer: tokenizer.ggml.pre ${shown(name)} is not known: this version has ` +
      `${
        Object.keys(RULES).join(", ")
      }: give the model's tokenizer.json with its safetensors files`,
  );
}
