/** Tokens that are cut out of a text before anything else: control tokens and the like. */
import { CheckpointError, shown } from "./errors.ts";
import { isJsonObject, type Json } from "./json.ts";

export interface AddedToken {
  id: number;
  content: string;
  /** Control tokens: skipped when decoding, and plain text where `parseSpecial` is false. */
  special: boolean;
  /** Matched after the normalizer ran, not before. */
  normalized: boolean;
  /** Take white space on that side with them. */
  lstrip: boolean;
  rstrip: boolean;
  /** Only match between characters that are no letters, digits or underscores. */
  singleWord: boolean;
}

/** Text between added tokens, or one of them. */
export type Section = { text: string } | { token: AddedToken };

/** As for a model's vocab_size. */
export const MAX_TOKENS = 10_000_000;
/** Names of tokens are short; engines refuse patterns of more than some ten thousand characters. */
const MAX_CONTENT_LENGTH = 1024;

/** @throws {CheckpointError} If the list is malformed. */
export function parseAddedTokens(list: Json | undefined): AddedToken[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw addedTokensError(list);
  return list.map((entry) => {
    if (!isJsonObject(entry)) throw addedTokensError(entry);
    const { id, content } = entry;
    const isSound = isTokenId(id) && typeof content === "string" &&
      content.length <= MAX_CONTENT_LENGTH;
    if (!isSound) throw addedTokensError(entry);
    return {
      id,
      content,
      special: entry.special === true,
      normalized: entry.normalized === true,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
      singleWord: entry.single_word === true,
    };
  });
}

export function isTokenId(id: Json | undefined): id is number {
  return Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < MAX_TOKENS;
}

function addedTokensError(value: unknown): CheckpointError {
  return new CheckpointError(
    `Cannot read the tokenizer: added_tokens must be a list of {id, content, ...}, ids below ` +
      `${MAX_TOKENS}, contents of at most ${MAX_CONTENT_LENGTH} characters: ` +
      `current value is ${shown(value)}`,
  );
}

/** Cuts a set of added tokens out of texts, the longest one first where several match. */
export class AddedTokenSplitter {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | null;

  /** @param spell How a token's content looks in the texts: normalized or not. */
  constructor(tokens: readonly AddedToken[], spell: (content: string) => string = (text) => text) {
    const bySpelling = new Map<string, AddedToken>();
    for (const token of tokens) {
      const spelling = spell(token.content);
      if (spelling !== "") bySpelling.set(spelling, token);
    }
    this.#tokens = bySpelling;
    const longestFirst = [...bySpelling.keys()].sort((a, b) => b.length - a.length);
    const source = longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|\/]/g, "\\$&")).join(
      "|",
    );
    this.#pattern = source === "" ? null : new RegExp(source, "gu");
  }

  split(text: string): Section[] {
    if (this.#pattern === null) return text === "" ? [] : [{ text }];
    const sections: Section[] = [];
    let end = 0;
    for (const match of text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(match[0])!;
      if (match.index < end || (token.singleWord && !standsAlone(text, match))) continue;
      const before = text.slice(end, match.index);
      sections.push({ text: token.lstrip ? before.trimEnd() : before }, { token });
      end = match.index + match[0].length;
      if (token.rstrip) end += text.slice(end).length - text.slice(end).trimStart().length;
    }
    sections.push({ text: text.slice(end) });
    return sections.filter((section) => "token" in section || section.text !== "");
  }
}

const WORD_CHARACTER = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

function standsAlone(text: string, match: RegExpExecArray): boolean {
  const before = text.slice(0, match.index).at(-1) ?? " ";
  const after = text[match.index + match[0].length] ?? " ";
  return !WORD_CHARACTER.test(before) && !WORD_CHARACTER.test(after);
}
