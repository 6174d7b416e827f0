/** Texts that need not fit in memory, and their token ids: the same as of the whole text. */
import type { Tokenizer } from "./types.ts";

/** A text in parts. */
export interface TextSource {
  /** In order, cut between characters. */
  parts: Iterable<string> | AsyncIterable<string>;
  /** UTF-8 bytes of all parts, or null where nobody knows. */
  bytes: number | null;
}

/** Ids of the next piece of a text. */
export interface EncodedPiece {
  ids: number[];
  /** UTF-8 bytes that they stand for. */
  bytes: number;
  isLast: boolean;
}

/** UTF-16 units that are encoded at once, unless there is no good place to cut. */
const PIECE_UNITS = 1 << 15;
/** A piece without a place to cut, such as one endless word, may grow to this. */
const MOST_PIECE_UNITS = 1 << 25;
/** Units after a cut that must give the same ids with and without what is before it. */
const OVERLAP_UNITS = 256;
const MOST_TRIES = 8;
/** Stands before pieces that are not the first: what tokenizers add to a text's start is not theirs. */
const BEFORE = "\n";
/** Between a line and the next, or between two words: where tokens of all known tokenizers end. */
const CUTS = [
  /(?<=\S\n)(?=\S)/g,
  /(?<=\p{L})(?= \p{L})/gu,
  /(?<=\s)(?=\S)/g,
  /(?<=\P{M})(?=\P{M})/gu,
];

/** A text that is there as a whole. */
export function textSource(text: string): TextSource {
  return { parts: [text], bytes: byteLength(text) };
}

/**
 * Token ids of a text, without special tokens. The text is cut into pieces between tokens: a place is
 * taken only if the ids on both of its sides are those that the text around it has.
 */
export async function* encodePieces(
  tokenizer: Tokenizer,
  { parts }: TextSource,
): AsyncGenerator<EncodedPiece> {
  let text = "";
  let isFirst = true;
  let wanted = PIECE_UNITS;
  for await (const part of parts) {
    text += part;
    while (text.length >= wanted) {
      const front = frontOf(tokenizer, text, wanted, isFirst);
      if (front === null) {
        wanted = Math.min(2 * wanted, MOST_PIECE_UNITS);
        if (text.length >= MOST_PIECE_UNITS) throw uncuttable();
        continue;
      }
      yield { ids: front.ids, bytes: byteLength(text.slice(0, front.units)), isLast: false };
      text = text.slice(front.units);
      isFirst = false;
      wanted = PIECE_UNITS;
    }
  }
  yield { ids: encoded(tokenizer, text, isFirst) ?? [], bytes: byteLength(text), isLast: true };
}

function uncuttable(): RangeError {
  return new RangeError(
    `Cannot read the text as it has ${MOST_PIECE_UNITS} characters without a place between two ` +
      "tokens: break its lines",
  );
}

function frontOf(
  tokenizer: Tokenizer,
  text: string,
  wanted: number,
  isFirst: boolean,
): { ids: number[]; units: number } | null {
  for (const units of placesToCut(text, wanted)) {
    const tail = encoded(tokenizer, text.slice(units, units + OVERLAP_UNITS), false);
    const all = encoded(tokenizer, text.slice(0, units + OVERLAP_UNITS), isFirst);
    if (tail === null || all === null || !endsWith(all, tail)) continue;
    return { ids: all.slice(0, all.length - tail.length), units };
  }
  return null;
}

/** The last few of each kind, the best kind first. */
function* placesToCut(text: string, wanted: number): Generator<number> {
  // Enough for some lines, and no more: the whole piece need not be searched.
  const from = Math.max(1, wanted - OVERLAP_UNITS - (PIECE_UNITS >> 3));
  const window = text.slice(from - 1, wanted - OVERLAP_UNITS);
  for (const cut of CUTS) {
    const found = [...window.matchAll(cut)].map(({ index }) => index);
    yield* found.filter((at) => at > 0).slice(-MOST_TRIES).reverse().map((at) => at + from - 1);
  }
}

/** Ids of a text, or of one that goes on; null where what is before it would change. */
function encoded(tokenizer: Tokenizer, text: string, isFirst: boolean): number[] | null {
  const options = { addSpecialTokens: false, parseSpecial: false };
  if (isFirst) return tokenizer.encode(text, options);
  const before = tokenizer.encode(BEFORE, options);
  const ids = tokenizer.encode(BEFORE + text, options);
  return before.every((id, i) => ids[i] === id) ? ids.slice(before.length) : null;
}

function endsWith(ids: readonly number[], tail: readonly number[]): boolean {
  const from = ids.length - tail.length;
  return from >= 0 && tail.every((id, i) => ids[from + i] === id);
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
