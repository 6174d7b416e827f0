import assert from "node:assert/strict";
import { call, choice, type Expression, repeat, sequence, set, text } from "./expression.ts";
import { link } from "./linked_rules.ts";
import { Masks } from "./masks.ts";
import { TokenMatcher } from "./matcher.ts";
import { pairs } from "./ranges.ts";
import { follow, type ReferenceGrammar, rulesWithTexts } from "./reference_matcher.ts";
import { RuleBook } from "./rule_book.ts";
import { END_ID, idsOf, randomNumbers, vocabularyOf } from "./test_vocabularies.ts";
import { GrammarError } from "./types.ts";
import { Workload } from "./workload.ts";

const ALPHABET = "abc";
const NUM_RULES = 4;

/** Random grammars: ambiguous, recursive, with rules that can be empty. */
class RandomGrammars {
  readonly random: () => number;

  constructor(seed: number) {
    this.random = randomNumbers(seed);
  }

  below(count: number): number {
    return Math.floor(this.random() * count);
  }

  grammar(): ReferenceGrammar {
    return Array.from({ length: NUM_RULES }, () => this.#expression(3));
  }

  word(maxLength: number): string {
    const length = 1 + this.below(maxLength);
    return Array.from({ length }, () => ALPHABET[this.below(ALPHABET.length)]).join("");
  }

  #expression(depth: number): Expression {
    const kind = this.below(depth === 0 ? 3 : 7);
    const inner = () => this.#expression(depth - 1);
    const several = () => Array.from({ length: 1 + this.below(3) }, inner);
    if (kind === 0) return text(this.word(3));
    if (kind === 1) return set(pairs(["aa", "ab", "bc", "cc"][this.below(4)]));
    if (kind === 2) return call(this.below(NUM_RULES));
    if (kind === 3) return choice(...several());
    if (kind === 4) return repeat(inner(), this.below(3), [null, 2, 3][this.below(3)]);
    return sequence(...several());
  }
}

async function compiledGrammar(grammar: ReferenceGrammar, tokens: readonly string[]) {
  const work = new Workload();
  const book = new RuleBook(work);
  for (const _ of grammar) book.declare();
  for (const [id, expression] of grammar.entries()) await book.define(id, expression);
  const encoder = new TextEncoder();
  const vocabulary = await vocabularyOf(tokens.map((token) => encoder.encode(token)));
  const rules = await link(book.finished(), (byte) => vocabulary.isSpellable(byte), work);
  return new TokenMatcher(new Masks(rules, vocabulary), vocabulary, rules.starts[0]);
}

/** Follows a random text and compares every mask on its way. Returns the number of masks. */
function compareMasks(
  grammar: ReferenceGrammar,
  matcher: TokenMatcher,
  tokens: readonly string[],
  random: () => number,
  replay: string,
): number {
  let said = "";
  for (let step = 0; said.length < 7; step++) {
    const expected = tokens.flatMap((token, i) =>
      follow(grammar, said + token).isBeginning ? [i + 1] : []
    );
    const { isWhole } = follow(grammar, said);
    const all = isWhole ? [END_ID, ...expected] : expected;
    assert.deepEqual(idsOf(matcher.allowed()), all, `${replay}: after ${JSON.stringify(said)}`);
    assert.equal(matcher.isComplete, isWhole, replay);
    assert.equal(matcher.isFinished, isWhole && expected.length === 0, replay);
    if (expected.length === 0) return step + 1;
    const id = expected[Math.floor(random() * expected.length)];
    matcher.accept(id);
    said += tokens[id - 1];
  }
  return 0;
}

Deno.test("masks are those of the reference, on random grammars", async () => {
  let numGrammars = 0;
  let numLeftRecursive = 0;
  for (let seed = 1; seed <= 1500; seed++) {
    const all = new RandomGrammars(seed);
    const grammar = all.grammar();
    if (rulesWithTexts(grammar).size < NUM_RULES) continue;
    const words = Array.from({ length: 12 }, () => all.word(5));
    const tokens = [...ALPHABET, ...words];
    const replay = `seed ${seed}, ${JSON.stringify(grammar)}`;
    let matcher;
    try {
      matcher = await compiledGrammar(grammar, tokens);
    } catch (error) {
      assert.ok(error instanceof GrammarError, `${replay}: ${error}`);
      assert.match(error.message, /left recursion/);
      numLeftRecursive++;
      continue;
    }
    numGrammars++;
    compareMasks(grammar, matcher, tokens, all.random, replay);
  }
  assert.ok(numGrammars > 300 && numLeftRecursive > 50, `${numGrammars}, ${numLeftRecursive}`);
});
