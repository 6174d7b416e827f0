import assert from "node:assert/strict";
import { embeddedModelFolder } from "./embedded.ts";
import { SAMPLE_TEXT } from "./sample_text.ts";
import { encodePieces, textSource } from "./text_source.ts";
import { createTokenizer, loadTokenizer } from "./tokenizer.ts";
import type { Tokenizer } from "./types.ts";

/** Not of a size that divides anything. */
function* inParts(text: string, units = 10_007): Generator<string> {
  for (let at = 0; at < text.length; at += units) yield text.slice(at, at + units);
}

async function piecesOf(tokenizer: Tokenizer, text: string) {
  return await Array.fromAsync(encodePieces(tokenizer, { parts: inParts(text), bytes: null }));
}

const LONG = Array.from({ length: 12 }, (_, i) => `${SAMPLE_TEXT}\n\n${i}. `).join("");

const TEXTS: Record<string, string> = {
  prose: LONG,
  "prose without line ends": LONG.replace(/\n+/g, " "),
  "one endless word": LONG.replace(/[^a-z]/gi, ""),
  "white space of all kinds": LONG.replace(
    / /g,
    (_, at) => ["  ", "\n", "\t\n ", "\u00a0"][at % 4],
  ),
  "digits": LONG.replace(/[a-z]/gi, (letter) => String(letter.charCodeAt(0))),
  "emoji and accents": LONG.replace(/e/g, "e\u0301").replace(/a/g, "\u{1f407}"),
  "no letters": LONG.replace(/[a-z ]/gi, "!"),
};

const story = await loadTokenizer(embeddedModelFolder());

/** Llama 2's kind: no words, spaces are marks, and the text's start gets one. */
const wordless = createTokenizer({
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "\u2581" },
      { type: "Replace", pattern: { String: " " }, content: "\u2581" },
    ],
  },
  pre_tokenizer: null,
  model: wordlessModel(),
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "\u2581" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
});

function wordlessModel() {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  const letters = [..."\u2581abcdefghijklmnopqrstuvwxyzTHAW.,"];
  const merges = ["t h", "th e", "\u2581 the", "\u2581 a", "a n", "an d", "\u2581 and", "i n"];
  const joined = merges.map((merge) => merge.replace(" ", ""));
  const names = [...bytes, ...letters, ...joined];
  const vocab = Object.fromEntries(names.map((name, id) => [name, id]));
  return { type: "BPE", byte_fallback: true, vocab, merges };
}

for (const [name, tokenizer] of Object.entries({ story, wordless })) {
  for (const [kind, text] of Object.entries(TEXTS)) {
    Deno.test(`pieces have the ids of the whole text: ${name}, ${kind}`, async () => {
      const pieces = await piecesOf(tokenizer, text);
      assert.ok(pieces.length > 3, `${pieces.length} pieces`);
      const ids = pieces.flatMap((piece) => piece.ids);
      const whole = tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
      assert.equal(ids.length, whole.length);
      assert.ok(ids.every((id, i) => id === whole[i]));
      const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
      assert.equal(bytes, textSource(text).bytes);
      assert.deepEqual(pieces.map(({ isLast }) => isLast).indexOf(true), pieces.length - 1);
    });
  }
}

Deno.test("a cut in the middle of a token is never taken", async () => {
  // One token a hundred letters: only every hundredth place is between two.
  const hundred = {
    encode: (text: string) => [...text.matchAll(/\n|[^\n]{1,100}/g)].map(([part]) => part.length),
  } as unknown as Tokenizer;
  const pieces = await piecesOf(hundred, "x".repeat(100_000));
  assert.deepEqual(pieces.flatMap(({ ids }) => ids), Array(1000).fill(100));
});

Deno.test("an empty text has one piece without ids", async () => {
  assert.deepEqual(await piecesOf(story, ""), [{ ids: [], bytes: 0, isLast: true }]);
});
