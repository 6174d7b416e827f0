import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import fc from "fast-check";
import { fixturePath } from "../tests/fixtures.ts";
import {
  fixtureTokenizer,
  TOKENIZER_NAMES,
  tokenizerVectors,
} from "../tests/tokenizer_fixtures.ts";
import { TextStream, type TextStreamOptions } from "./text_stream.ts";
import { loadTokenizer } from "./tokenizer.ts";
import type { Tokenizer } from "./types.ts";

/** All pieces of a stream, the flushed one last. */
function piecesOf(tokenizer: Tokenizer, ids: readonly number[], options: TextStreamOptions = {}) {
  const stream = new TextStream(tokenizer, options);
  const pieces: string[] = [];
  for (const id of ids) {
    const { text, stopped } = stream.push(id);
    pieces.push(text);
    if (stopped) break;
  }
  pieces.push(stream.flush());
  return { pieces, text: pieces.join(""), stopped: stream.stopped };
}

/** Where the text ends: before the stop string that a reader from left to right finishes first. */
function cutAtStop(text: string, stops: readonly string[]): string {
  for (let end = 0; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (found.length > 0) return text.slice(0, end - Math.max(...found.map((s) => s.length)));
  }
  return text;
}

for (const name of TOKENIZER_NAMES) {
  const tokenizer = fixtureTokenizer(name);
  // Low ids are bytes in these vocabularies, so half of them: broken characters are the hard part.
  const anyId = fc.oneof(fc.nat(300), fc.nat(tokenizer.vocabSize + 5));
  const anyIds = fc.array(anyId, { maxLength: 40 });

  Deno.test(`${name}: the pieces of any ids are their decoding`, () => {
    fc.assert(
      fc.property(anyIds, fc.boolean(), (ids, skipSpecialTokens) => {
        const { pieces, text } = piecesOf(tokenizer, ids, { skipSpecialTokens });
        assert.equal(text, tokenizer.decode(ids, { skipSpecialTokens }));
        assert.ok(pieces.every((piece) => piece.isWellFormed()));
      }),
      { numRuns: 500 },
    );
  });

  Deno.test(`${name}: the bytes of pieces together are the text, where it is UTF-8`, () => {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    let compared = 0;
    const compare = (any: readonly number[]) => {
      const ids = any.filter((id) => tokenizer.tokenText(id) !== null);
      const bytes = ids.flatMap((id, i) => [...tokenizer.pieceBytes(id, i === 0)]);
      let text: string;
      try {
        text = utf8.decode(Uint8Array.from(bytes));
      } catch {
        return;
      }
      assert.equal(text, tokenizer.decode(ids));
      compared++;
    };
    for (const { ids } of tokenizerVectors(name)) compare(ids.slice(1));
    fc.assert(fc.property(anyIds, compare));
    assert.ok(compared > 100);
  });

  Deno.test(`${name}: the pieces end where the first complete stop string begins`, () => {
    const stop = fc.oneof(
      fc.string({ unit: "grapheme", minLength: 1, maxLength: 3 }),
      fc.constantFrom(" ", "e", "\ufffd", "\ufffd\ufffd", "a\ufffd"),
    );
    fc.assert(
      fc.property(anyIds, fc.array(stop, { maxLength: 3 }), (ids, stops) => {
        const whole = tokenizer.decode(ids, { skipSpecialTokens: true });
        const expected = cutAtStop(whole, stops);
        const { text, stopped } = piecesOf(tokenizer, ids, { stop: stops });
        assert.equal(text, expected);
        if (stopped) assert.notEqual(expected, whole);
      }),
      { numRuns: 500 },
    );
  });

  Deno.test(`${name}: real texts stream whole, and stop inside of them`, () => {
    for (const { ids, text, i } of tokenizerVectors(name)) {
      const whole = tokenizer.decode(ids, { skipSpecialTokens: true });
      assert.equal(piecesOf(tokenizer, ids).text, whole, `vector ${i}`);
      const stop = text.toWellFormed().slice(2, 6);
      if (stop === "" || !stop.isWellFormed()) continue;
      const expected = cutAtStop(whole, [stop]);
      assert.equal(piecesOf(tokenizer, ids, { stop: [stop] }).text, expected, `vector ${i}`);
    }
  });
}

Deno.test("the fixture models' tokenizers stream any ids", async () => {
  for (const name of readdirSync(fixturePath("models"))) {
    const tokenizer = await loadTokenizer(fixturePath(`models/${name}`));
    fc.assert(
      fc.property(fc.array(fc.nat(tokenizer.vocabSize), { maxLength: 30 }), (ids) => {
        const expected = tokenizer.decode(ids, { skipSpecialTokens: true });
        assert.equal(piecesOf(tokenizer, ids).text, expected);
      }),
      { numRuns: 60 },
    );
  }
});

Deno.test("text comes as soon as it is certain", () => {
  const llama3 = fixtureTokenizer("llama3");
  const ids = llama3.encode("a STOP it", { addSpecialTokens: false });
  const { pieces } = piecesOf(llama3, ids);
  assert.deepEqual(pieces, [...ids.map((id) => llama3.decode([id])), ""]);
  const stream = new TextStream(llama3, { stop: ["ab!", "b?"] });
  const push = (text: string) => stream.push(llama3.tokenId(text)!).text;
  assert.deepEqual(["x", "a", "b", "c", "a"].map(push), ["x", "", "", "abc", ""]);
  assert.deepEqual(stream.push(llama3.tokenId("b")!), { text: "", stopped: false });
  assert.deepEqual(stream.push(llama3.tokenId("?")!), { text: "a", stopped: true });
  assert.deepEqual(stream.push(llama3.tokenId("x")!), { text: "", stopped: true });
  assert.equal(stream.flush(), "");
});

Deno.test("a character in several tokens comes when its last byte does", () => {
  const llama2 = fixtureTokenizer("llama2");
  const bytes = [0xf0, 0x9f, 0x99, 0x82].map((byte) => 3 + byte);
  const word = llama2.tokenId("▁the")!;
  const { pieces } = piecesOf(llama2, [word, ...bytes, word]);
  assert.deepEqual(pieces, ["the", "", "", "", "", "🙂 the", ""]);
  const llama3 = fixtureTokenizer("llama3");
  const emoji = llama3.encode("🦜", { addSpecialTokens: false });
  assert.ok(emoji.length > 1);
  assert.deepEqual(piecesOf(llama3, emoji).pieces, [...emoji.slice(1).map(() => ""), "🦜", ""]);
  assert.equal(piecesOf(llama3, emoji.slice(0, -1)).text, "\ufffd");
});

Deno.test("a tokenizer without decodeStream streams its tokens' bytes", () => {
  const { decodeStream: _, ...rest } = {
    decodeStream: null,
    isSpecial: (id: number) => id === 256,
    tokenBytes: (id: number) => id === 256 ? new Uint8Array([60]) : Uint8Array.of(id),
  };
  const bytesOnly = rest as unknown as Tokenizer;
  const ids = [...new TextEncoder().encode("é🙂"), 256, 0xff];
  assert.equal(piecesOf(bytesOnly, ids).text, "é🙂\ufffd");
  assert.equal(piecesOf(bytesOnly, ids, { skipSpecialTokens: false }).text, "é🙂<\ufffd");
});

Deno.test("an empty stop string is refused", () => {
  assert.throws(() => new TextStream(fixtureTokenizer("llama3"), { stop: ["a", ""] }), RangeError);
});
