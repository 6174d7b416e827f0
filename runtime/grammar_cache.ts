import { compileGrammar } from "./grammar/compile.ts";
import type { Grammar, GrammarSource } from "./grammar/types.ts";
import { GrammarVocabulary } from "./grammar/vocabulary.ts";
import type { StreamingTokenizer } from "./tokenizer.ts";

/** Compiled grammars that are kept: each has masks of its own. */
const MOST_GRAMMARS = 64;

export interface GrammarCacheOptions {
  tokenizer: StreamingTokenizer;
  /** The model's: its head may have more rows than the tokenizer has tokens. */
  vocabSize: number;
  eosTokenIds: readonly number[];
}

/** A model's grammars: the vocabulary is read once, and an equal source is compiled once. */
export class GrammarCache {
  #vocabulary: Promise<GrammarVocabulary> | null = null;
  /** By the source's JSON, the longest unused first. */
  readonly #grammars = new Map<string, Promise<Grammar>>();

  constructor(private readonly options: GrammarCacheOptions) {}

  /** @throws {GrammarError} If the source is malformed, not supported, or too large. */
  async compiled(source: GrammarSource): Promise<Grammar> {
    const vocabulary = await this.prepare();
    const key = JSON.stringify(source);
    const grammar = this.#grammars.get(key) ?? compileGrammar(source, vocabulary);
    this.#grammars.delete(key);
    this.#grammars.set(key, grammar);
    // What failed is no use to the next one.
    grammar.catch(() => this.#grammars.delete(key));
    if (this.#grammars.size > MOST_GRAMMARS) {
      this.#grammars.delete(this.#grammars.keys().next().value!);
    }
    return await grammar;
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
