import { compileGrammar } from "./grammar/compile.ts";
import type { Grammar, GrammarSource } from "./grammar/types.ts";
import { GrammarVocabulary } from "./grammar/vocabulary.ts";
import type { StreamingTokenizer } from "./tokenizer.ts";

/** Compiled grammars that are kept: each has masks of its own. */
const MOST_GRAMMARS = 64;
/** Of all kept grammars together: some hundred megabytes. A usual schema has a few hundred. */
const MOST_STATES = 300_000;

export interface GrammarCacheOptions {
  tokenizer: StreamingTokenizer;
  /** The model's: its head may have more rows than the tokenizer has tokens. */
  vocabSize: number;
  eosTokenIds: readonly number[];
  /** Of all kept grammars together. */
  mostStates?: number;
}

/** A model's grammars: the vocabulary is read once, and an equal source is compiled once. */
export class GrammarCache {
  #vocabulary: Promise<GrammarVocabulary> | null = null;
  /** By the source's JSON, the longest unused first. */
  readonly #grammars = new Map<string, Promise<Grammar>>();
  readonly #numStates = new Map<string, number>();

  constructor(private readonly options: GrammarCacheOptions) {}

  /** @throws {GrammarError} If the source is malformed, not supported, or too large. */
  async compiled(source: GrammarSource): Promise<Grammar> {
    const vocabulary = await this.prepare();
    const key = JSON.stringify(source);
    const compiling = this.#grammars.get(key) ?? compileGrammar(source, vocabulary);
    this.#grammars.delete(key);
    this.#grammars.set(key, compiling);
    try {
      const grammar = await compiling;
      this.#numStates.set(key, grammar.numStates);
      this.#forgetOldest(key);
      return grammar;
    } catch (error) {
      // What failed is no use to the next one.
      this.#forget(key);
      throw error;
    }
  }

  #forgetOldest(newest: string): void {
    const { mostStates = MOST_STATES } = this.options;
    for (const key of [...this.#grammars.keys()]) {
      const states = [...this.#numStates.values()].reduce((sum, count) => sum + count, 0);
      const isFull = this.#grammars.size > MOST_GRAMMARS || states > mostStates;
      if (!isFull || key === newest) return;
      this.#forget(key);
    }
  }

  #forget(key: string): void {
    this.#grammars.delete(key);
    this.#numStates.delete(key);
  }

  /** Reads the vocabulary, so that the first grammar need not wait for it. */
  prepare(): Promise<GrammarVocabulary> {
    return this.#vocabulary ??= this.#read();
  }

  #read(): Promise<GrammarVocabulary> {
    const { tokenizer, vocabSize, eosTokenIds } = this.options;
    return GrammarVocabulary.create({
      vocabSize,
      eosTokenIds,
      tokenBytes: (id) => tokenizer.pieceBytes(id, false),
      firstTokenBytes: (id) => tokenizer.pieceBytes(id, true),
      isSpecial: (id) => tokenizer.isSpecial(id),
    });
  }
}
