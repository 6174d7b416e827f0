/**
 * Compiles grammars for constrained decoding. A source becomes rules over bytes that call each other
 * (`rule_book.ts`), these one table of states (`linked_rules.ts`); a text is a set of states with
 * what called them (`positions.ts`), and a mask says which tokens go on from there (`masks.ts`).
 *
 * Every text that comes out is one of the source's texts, as each token is checked byte by byte,
 * and none can get stuck, as all states lead to an end by bytes that are tokens.
 *
 * What is stricter than the source, so that a model can't write for ever and any validator agrees:
 * JSON has no white space but one space after a comma or colon; members come in the schema's order,
 * others last; integers have at most 19 digits, numbers with bounds 15, exponents two. Sources that
 * need more than 250,000 states, 8 million steps of work (a second) or 200 levels are refused.
 */
import { choiceRules } from "./choice.ts";
import { gbnfRules } from "./gbnf.ts";
import { jsonRules } from "./json.ts";
import { jsonSchemaRules } from "./json_schema.ts";
import { link, type LinkedRules } from "./linked_rules.ts";
import { Masks } from "./masks.ts";
import { TokenMatcher } from "./matcher.ts";
import { regexRules } from "./regex.ts";
import { RuleBook } from "./rule_book.ts";
import { toolRules } from "./tools.ts";
import type { Grammar, GrammarMatcher, GrammarSource } from "./types.ts";
import { checkVocabulary, type GrammarVocabulary } from "./vocabulary.ts";
import { Workload } from "./workload.ts";

/** The longest that masks are made ahead; the others are made when a text first needs them. */
const MAX_PREPARING_MS = 2000;

/**
 * Compiles a grammar once for any number of texts. It gives way to other work every few ms.
 *
 * @throws {GrammarError} If the source is malformed, not supported, or too large.
 */
export async function compileGrammar(
  source: GrammarSource,
  vocabulary: GrammarVocabulary,
): Promise<Grammar> {
  checkVocabulary(vocabulary);
  const work = new Workload();
  const book = new RuleBook(work);
  await addRules(source, book, vocabulary);
  const rules = await link(book.finished(), (byte) => vocabulary.isSpellable(byte), work);
  const masks = new Masks(rules, vocabulary);
  await prepare(rules, masks, work);
  masks.rest();
  return new CompiledGrammar(source, rules, masks, vocabulary);
}

/** Rule 0 is the text. */
async function addRules(
  source: GrammarSource,
  book: RuleBook,
  vocabulary: GrammarVocabulary,
): Promise<void> {
  const longest = vocabulary.tree.maxDepth;
  switch (source.kind) {
    case "json":
      return await jsonRules(book, longest);
    case "jsonSchema":
      return await jsonSchemaRules(book, source.schema, longest);
    case "regex":
      return await regexRules(book, source.pattern);
    case "choice":
      return await choiceRules(book, source.choices);
    case "gbnf":
      return await gbnfRules(book, source.grammar);
    case "tools":
      return await toolRules(book, source, longest);
  }
}

/** Where a text can be between two tokens: after a byte, or after a call. */
async function prepare(rules: LinkedRules, masks: Masks, work: Workload): Promise<void> {
  const endMs = performance.now() + MAX_PREPARING_MS;
  for (const state of restingStates(rules)) {
    if (performance.now() > endMs) return;
    await work.pause();
    masks.prepare(state);
  }
}

function restingStates(rules: LinkedRules): Set<number> {
  const states = new Set([rules.starts[0]]);
  for (const edges of rules.edges) for (let i = 2; i < edges.length; i += 3) states.add(edges[i]);
  for (const calls of rules.calls) for (const { to } of calls) states.add(to);
  return states;
}

class CompiledGrammar implements Grammar {
  readonly source: GrammarSource;
  readonly #rules: LinkedRules;
  readonly #masks: Masks;
  readonly #vocabulary: GrammarVocabulary;

  constructor(
    source: GrammarSource,
    rules: LinkedRules,
    masks: Masks,
    vocabulary: GrammarVocabulary,
  ) {
    this.source = source;
    this.#rules = rules;
    this.#masks = masks;
    this.#vocabulary = vocabulary;
  }

  get numStates(): number {
    return this.#rules.numStates;
  }

  start(): GrammarMatcher {
    return new TokenMatcher(this.#masks, this.#vocabulary, this.#rules.starts[0]);
  }
}
