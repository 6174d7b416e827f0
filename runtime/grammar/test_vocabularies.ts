/** Small vocabularies and random walks, for tests of grammars. */
import { compileGrammar } from "./compile.ts";
import type { Grammar, GrammarSource } from "./types.ts";
import { GrammarVocabulary } from "./vocabulary.ts";

export const END_ID = 0;

const WORDS = [
  ...'{" "} "}, "}] "]} ": "," {"a" [[ ]] }} }, ], [{ true false null tru 12 123 0. 1e -1'.split(
    " ",
  ),
  ...'\\n \\u00 \\ud83d é 😀 日本 name value a" b", the <tool_call> </tool_call> <tool'.split(" "),
  ...["  ", ", ", ": ", '": ', '": "', '", "', "\n", " {", ' "', '\n{"', '": {"'],
];

/** Every byte alone, some words, a special token and one without bytes. */
export async function byteVocabulary(words: readonly string[] = WORDS) {
  return await vocabularyOf([
    ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    ...words.map((word) => new TextEncoder().encode(word)),
    new TextEncoder().encode("é").subarray(1),
    Uint8Array.of(0x22, 0xc3),
    new Uint8Array(),
  ]);
}

/** Token 0 ends texts; the others are `tokens`, from 1 on. */
export async function vocabularyOf(tokens: readonly Uint8Array[]): Promise<GrammarVocabulary> {
  const all = [new Uint8Array(), ...tokens];
  return await GrammarVocabulary.create({
    vocabSize: all.length,
    tokenBytes: (id) => all[id],
    isSpecial: (id) => id === END_ID,
    eosTokenIds: [END_ID],
  });
}

/** Reproducible numbers from 0 to 1 (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function idsOf(mask: Uint32Array): number[] {
  const ids: number[] = [];
  for (const [word, bits] of mask.entries()) {
    for (let bit = 0; bit < 32; bit++) if ((bits >>> bit) & 1) ids.push(word * 32 + bit);
  }
  return ids;
}

/**
 * A random text of a grammar, or null if it did not end in time. The longer it is, the more tokens
 * are drawn that close something.
 */
export function randomText(
  grammar: Grammar,
  vocabulary: GrammarVocabulary,
  random: () => number,
  maxTokens = 600,
): string | null {
  const matcher = grammar.start();
  const bytes: number[] = [];
  for (let step = 0; step < maxTokens; step++) {
    const ids = idsOf(matcher.allowed());
    if (ids.length === 0) throw new Error(`Stuck after ${shownText(bytes)}`);
    const closing = ids.filter((id) => id === END_ID || isClosing(vocabulary.bytesOf(id, false)));
    const candidates = closing.length > 0 && random() < step / 100 ? closing : ids;
    const id = candidates[Math.floor(random() * candidates.length)];
    matcher.accept(id);
    if (id === END_ID) return shownText(bytes);
    bytes.push(...vocabulary.bytesOf(id, step === 0));
  }
  return null;
}

function shownText(bytes: readonly number[]): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

function isClosing(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes.every((byte) => '"}],:'.includes(String.fromCharCode(byte)));
}

/** Whether a text is one of a grammar's, byte by byte. */
export function isText(grammar: Grammar, text: string): boolean {
  const matcher = grammar.start();
  try {
    for (const byte of new TextEncoder().encode(text)) matcher.accept(byte + 1);
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
  return matcher.isComplete;
}

let bytesOnly: Promise<GrammarVocabulary> | null = null;

/** Compiles for `byteVocabulary`, whose tokens from 1 on are the bytes. */
export async function compiled(source: GrammarSource): Promise<Grammar> {
  bytesOnly ??= byteVocabulary();
  return await compileGrammar(source, await bytesOnly);
}
