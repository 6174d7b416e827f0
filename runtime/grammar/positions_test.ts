import assert from "node:assert/strict";
import { call, choice, EMPTY, type Expression, sequence } from "./expression.ts";
import { link } from "./linked_rules.ts";
import { DEAD, Positions } from "./positions.ts";
import { RuleBook } from "./rule_book.ts";
import { GrammarError } from "./types.ts";
import { Workload } from "./workload.ts";

async function linked(grammar: readonly Expression[]) {
  const work = new Workload();
  const book = new RuleBook(work);
  for (const _ of grammar) book.declare();
  for (const [id, expression] of grammar.entries()) await book.define(id, expression);
  return await link(book.finished(), () => true, work);
}

function advanced(positions: Positions, from: number, text: string): number {
  let position = from;
  for (const byte of new TextEncoder().encode(text)) {
    position = positions.advance(position, byte);
    assert.notEqual(position, DEAD, text);
  }
  return position;
}

/** Palindromes of a and b around a c: ambiguous nowhere, and as deep as they are long. */
const PALINDROME = choice("c", sequence("a", call(0), "a"), sequence("b", call(0), "b"));

Deno.test("other positions of the same grammar go on where these were", async () => {
  const rules = await linked([PALINDROME]);
  const [one, other] = [new Positions(rules), new Positions(rules)];
  advanced(other, other.at(rules.starts[0]), "bbbb");
  const half = "abbaab".repeat(50);
  const position = advanced(one, one.at(rules.starts[0]), `${half}c`);
  const adopted = other.adopt(one, position);
  const back = [...half].reverse().join("");
  assert.ok(!other.completes(adopted));
  assert.ok(other.completes(advanced(other, adopted, back)));
});

Deno.test("a list that is written as a recursion at its end does not grow", async () => {
  const spaces = choice(EMPTY, sequence(" ", call(1)));
  const rules = await linked([sequence(call(1), "x"), spaces]);
  const positions = new Positions(rules);
  const first = advanced(positions, positions.at(rules.starts[0]), "  ");
  assert.equal(advanced(positions, first, " ".repeat(1000)), first);
});

Deno.test("ambiguous grammars are followed up to a bound", async () => {
  const word = choice("a", sequence("a", call(1), "a"), sequence("a", call(1)));
  const rules = await linked([sequence(call(1), call(1)), word]);
  const positions = new Positions(rules);
  const end = advanced(positions, positions.at(rules.starts[0]), "a".repeat(60));
  assert.ok(positions.completes(end));
  assert.ok(positions.kernel(end).length <= rules.numStates);
  assert.throws(() => advanced(positions, end, "a".repeat(2000)), GrammarError);
});
