import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { fixturePath } from "../../tests/fixtures.ts";
import { fixtureTokenizer, TOKENIZER_NAMES } from "../../tests/tokenizer_fixtures.ts";
import { TextStream } from "../text_stream.ts";
import { compileGrammar } from "./compile.ts";
import { idsOf, randomNumbers, vocabularyOf } from "./test_vocabularies.ts";
import type { GrammarSource } from "./types.ts";
import { GrammarVocabulary } from "./vocabulary.ts";

const SOURCES: [GrammarSource, RegExp][] = [
  [{ kind: "regex", pattern: "[a-cé☃]{0,3}-?[0-9]{2}" }, /^[a-cé☃]{0,3}-?[0-9]{2}$/],
  [{ kind: "regex", pattern: "  x{1,3}| y" }, /^( {2}x{1,3}| y)$/],
  [{ kind: "choice", choices: ["yes", " no", "日本語"] }, /^(yes| no|日本語)$/],
];

for (const name of TOKENIZER_NAMES) {
  Deno.test({
    name: `${name}: what clients see is a text of the grammar`,
    ignore: !existsSync(fixturePath(`tokenizers/${name}`)),
    async fn() {
      const tokenizer = fixtureTokenizer(name);
      const eos = tokenizer.vocabSize - 1;
      const vocabulary = await GrammarVocabulary.create({
        vocabSize: tokenizer.vocabSize + 7,
        eosTokenIds: [eos],
        tokenBytes: (id) => tokenizer.pieceBytes(id, false),
        firstTokenBytes: (id) => tokenizer.pieceBytes(id, true),
        isSpecial: (id) => tokenizer.isSpecial(id),
      });
      const random = randomNumbers(11);
      for (const [source, pattern] of SOURCES) {
        const grammar = await compileGrammar(source, vocabulary);
        for (let run = 0; run < 30; run++) {
          const matcher = grammar.start();
          const stream = new TextStream(tokenizer);
          let text = "";
          for (let id = -1; id !== eos;) {
            if (id >= 0) text += stream.push(id).text;
            const ids = idsOf(matcher.allowed());
            id = ids[Math.floor(random() * ids.length)];
            matcher.accept(id);
          }
          assert.match(text + stream.flush(), pattern);
        }
      }
    },
  });
}

Deno.test("the tree has every token once, below the nodes of its beginnings", async () => {
  const words = ["a", "ab", "abc", "b", "abd", "ab", "é"];
  const { tree } = await vocabularyOf(words.map((word) => new TextEncoder().encode(word)));
  const spelled: string[] = [];
  const path: number[] = [];
  for (let node = 1; node < tree.ends.length; node++) {
    path.length = tree.depths[node] - 1;
    path.push(tree.bytes[node]);
    for (const id of tree.tokens.subarray(tree.tokenStarts[node], tree.tokenStarts[node + 1])) {
      assert.equal(new TextDecoder().decode(Uint8Array.from(path)), words[id - 1]);
      spelled.push(words[id - 1]);
    }
    const below = tree.depths.subarray(node + 1, tree.ends[node]);
    assert.ok(below.every((depth) => depth > tree.depths[node]));
    assert.ok(!(tree.depths[tree.ends[node]] > tree.depths[node]));
  }
  assert.deepEqual(spelled.sort(), [...words].sort());
});
