/**
 * Cuts text into the words that byte-pair encoding then works on, by the `pre_tokenizer` section
 * of a tokenizer.json.
 *
 * The library translates the Oniguruma patterns of `Split`. The other stages are our own, as the
 * library's differ from the reference on rare characters: JavaScript's \s has U+FEFF and lacks
 * U+0085, and its \d is ASCII only where Rust's is_numeric is all of \p{N}.
 */
import { SplitPreTokenizer } from "@huggingface/tokenizers";
import { byteLevelText } from "./byte_level.ts";
import { CheckpointError, reasonOf, shown, UnsupportedModelError } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject } from "./json.ts";

/** Words of one section of a text; `isFirst` is true for the section at the text's start. */
export type PreTokenizer = (text: string, isFirst: boolean) => string[];

/**
 * @param section Null when the tokenizer has none: then the whole text is one word.
 * @throws {CheckpointError | UnsupportedModelError} If it is malformed or of an unknown type.
 */
export function createPreTokenizer(section: Json | undefined): PreTokenizer {
  if (section === null || section === undefined) return (text) => [text];
  if (!isJsonObject(section)) throw malformed(section);
  switch (section.type) {
    case "Sequence":
      return sequence(section);
    case "Split":
      return split(section);
    case "ByteLevel":
      return byteLevel(section);
    case "Digits":
      return matches(section.individual_digits === true ? /\p{N}|\P{N}+/gu : /\p{N}+|\P{N}+/gu);
    case "Punctuation":
      return punctuation(section);
    case "Metaspace":
      return metaspace(section);
    default:
      throw new UnsupportedModelError(
        `Cannot read the tokenizer: its pre_tokenizer ${shown(section.type)} is not known`,
      );
  }
}

function malformed(value: unknown): CheckpointError {
  return new CheckpointError(
    `Cannot read the tokenizer: its pre_tokenizer is malformed: ${shown(value)}`,
  );
}

function sequence(section: JsonObject): PreTokenizer {
  const { pretokenizers } = section;
  if (!Array.isArray(pretokenizers)) throw malformed(section);
  const stages = pretokenizers.map(createPreTokenizer);
  return (text, isFirst) => {
    let words = [text];
    for (const stage of stages) {
      words = words.flatMap((word, i) => stage(word, isFirst && i === 0));
    }
    return words;
  };
}

function split(section: JsonObject): PreTokenizer {
  const { pattern } = section;
  if (!isJsonObject(pattern) || typeof (pattern.Regex ?? pattern.String) !== "string") {
    throw malformed(section);
  }
  const behavior = typeof section.behavior === "string" ? section.behavior.toLowerCase() : null;
  if (behavior === "isolated" || behavior === "removed") return libraryCut(section);
  const literal = pattern.Regex === undefined && section.invert !== true ? pattern.String : null;
  if (typeof literal === "string" && literal !== "") {
    if (behavior === "mergedwithprevious") return (text) => cutAfter(text, literal);
    if (behavior === "mergedwithnext") return (text) => cutBefore(text, literal);
  }
  throw new UnsupportedModelError(
    `Cannot read the tokenizer: Split by ${shown(pattern)} with behavior ` +
      `${shown(section.behavior)} is not known`,
  );
}

function libraryCut(section: JsonObject): PreTokenizer {
  try {
    const splitter = new SplitPreTokenizer(
      section as unknown as ConstructorParameters<typeof SplitPreTokenizer>[0],
    );
    // Engines say only when they first match that a pattern is too large for them.
    for (const text of ["a b", "a \u2581"]) splitter.pre_tokenize_text(text);
    return (text) => splitter.pre_tokenize_text(text);
  } catch (error) {
    throw new UnsupportedModelError(
      `Cannot read the tokenizer: its Split pattern is not understood: ${reasonOf(error)}`,
    );
  }
}

/** GPT-2's pattern, with Unicode's white space in place of JavaScript's. */
const GPT2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

function byteLevel(section: JsonObject): PreTokenizer {
  const addsSpace = section.add_prefix_space === true;
  const usesRegex = section.use_regex !== false;
  return (text) => {
    const spaced = addsSpace && !text.startsWith(" ") ? ` ${text}` : text;
    const words = usesRegex ? spaced.match(GPT2_WORDS) ?? [] : [spaced];
    return words.map(byteLevelText);
  };
}

function matches(pattern: RegExp): PreTokenizer {
  return (text) => text.match(pattern) ?? [];
}

/** ASCII's symbols count as punctuation too, as in Rust's is_ascii_punctuation. */
const PUNCTUATION = "\\p{P}$+<=>^`|~";

function punctuation(section: JsonObject): PreTokenizer {
  switch (section.behavior ?? "Isolated") {
    case "Contiguous":
      return matches(new RegExp(`[${PUNCTUATION}]+|[^${PUNCTUATION}]+`, "gu"));
    case "Isolated":
      return matches(new RegExp(`[${PUNCTUATION}]|[^${PUNCTUATION}]+`, "gu"));
    default:
      throw new UnsupportedModelError(
        `Cannot read the tokenizer: Punctuation with behavior ${shown(section.behavior)} ` +
          "is not known",
      );
  }
}

/** SentencePiece's: spaces become U+2581, one stands before the text, each word starts with one. */
function metaspace(section: JsonObject): PreTokenizer {
  const mark = section.replacement ?? "\u2581";
  if (typeof mark !== "string" || [...mark].length !== 1) throw malformed(section);
  const legacyScheme = section.add_prefix_space === false ? "never" : "always";
  const scheme = section.prepend_scheme ?? legacyScheme;
  const isSplit = section.split !== false;
  return (text, isFirst) => {
    const marked = text.replaceAll(" ", mark);
    const wantsMark = scheme === "always" || (scheme === "first" && isFirst);
    const whole = wantsMark && !marked.startsWith(mark) ? mark + marked : marked;
    return isSplit ? cutBefore(whole, mark) : [whole];
  };
}

/** Pieces that begin at each mark. */
function cutBefore(text: string, mark: string): string[] {
  return cutAt(text, mark, 0);
}

/** Pieces that end with each mark. */
function cutAfter(text: string, mark: string): string[] {
  return cutAt(text, mark, mark.length);
}

/** Cuts so far behind the start of each mark. */
function cutAt(text: string, mark: string, offset: number): string[] {
  const pieces: string[] = [];
  let start = 0;
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + mark.length)) {
    pieces.push(text.slice(start, at + offset));
    start = at + offset;
  }
  pieces.push(text.slice(start));
  return pieces.filter((piece) => piece !== "");
}
