/** A vocabulary's tokens as bytes, in the shape that masks are made from: made once a model. */
import { createTokenTree, type TokenTree } from "./token_tree.ts";
import { TokenWalker } from "./token_walk.ts";
import { GrammarError } from "./types.ts";
import { WalkCache } from "./walk_cache.ts";
import { Workload } from "./workload.ts";

/** What is read of a tokenizer and its model. */
export interface VocabularySource {
  /** Ids are 0 ... vocabSize - 1: the model's, which may be more than the tokenizer's. */
  vocabSize: number;
  /** What a token adds to a text; no bytes: nothing, it is never allowed. */
  tokenBytes(id: number): Uint8Array;
  /** What it adds as the first one of a text, where that differs. */
  firstTokenBytes?(id: number): Uint8Array;
  /** Never allowed, but for those that end a text. */
  isSpecial(id: number): boolean;
  eosTokenIds: readonly number[];
}

/** Words of all grammars' walks: 96 MB. */
const MAX_WALK_WORDS = 24 << 20;
export class GrammarVocabulary {
  readonly vocabSize: number;
  readonly eosTokenIds: readonly number[];
  readonly tree: TokenTree;
  /** Of tokens that begin a text; `tree` itself where they say the same. */
  readonly firstTree: TokenTree;
  readonly walker: TokenWalker;
  /** Of all grammars; those of equal rules, such as strings, are made once. */
  readonly walks = new WalkCache(MAX_WALK_WORDS);
  readonly #source: VocabularySource;
  readonly #ends: ReadonlySet<number>;
  /** By byte: a token says it alone. */
  readonly #spellable: Uint8Array;

  private constructor(source: VocabularySource, tree: TokenTree, firstTree: TokenTree) {
    this.#source = source;
    this.vocabSize = source.vocabSize;
    const { vocabSize } = source;
    this.eosTokenIds = source.eosTokenIds.filter((id) => id >= 0 && id < vocabSize);
    this.#ends = new Set(this.eosTokenIds);
    this.tree = tree;
    this.walker = new TokenWalker(tree, this.maskLength);
    this.firstTree = firstTree;
    this.#spellable = spellableBytes(tree);
  }

  /** Takes a tenth of a second for a hundred thousand tokens, and gives way to other work meanwhile. */
  static async create(source: VocabularySource): Promise<GrammarVocabulary> {
    const work = new Workload(Infinity);
    const treeOf = (isFirst: boolean) =>
      createTokenTree(source.vocabSize, (id) => bytesOf(source, id, isFirst), work);
    const tree = await treeOf(false);
    const firstTree = source.firstTokenBytes === undefined ? tree : await treeOf(true);
    return new GrammarVocabulary(source, tree, firstTree);
  }

  /** Words of a mask. */
  get maskLength(): number {
    return Math.ceil(this.vocabSize / 32);
  }

  isSpellable(byte: number): boolean {
    return this.#spellable[byte] === 1;
  }

  /** Ends a text. */
  isEnd(id: number): boolean {
    return this.#ends.has(id);
  }

  /** None: it is never allowed. */
  bytesOf(id: number, isFirst: boolean): Uint8Array {
    return bytesOf(this.#source, id, isFirst);
  }
}

function bytesOf(source: VocabularySource, id: number, isFirst: boolean): Uint8Array {
  const isLeftOut = id < 0 || id >= source.vocabSize || source.isSpecial(id) ||
    source.eosTokenIds.includes(id);
  if (isLeftOut) return new Uint8Array();
  const bytes = isFirst ? source.firstTokenBytes?.(id) : undefined;
  return bytes ?? source.tokenBytes(id);
}

function spellableBytes(tree: TokenTree): Uint8Array {
  const spellable = new Uint8Array(256);
  for (let node = 1; node < tree.ends.length; node = tree.ends[node]) {
    if (tree.tokenStarts[node + 1] > tree.tokenStarts[node]) spellable[tree.bytes[node]] = 1;
  }
  return spellable;
}

/** @throws {GrammarError} If there is nothing to spell texts with. */
export function checkVocabulary(vocabulary: GrammarVocabulary): void {
  if (vocabulary.tree.tokens.length > 0) return;
  throw new GrammarError("Cannot constrain texts as no token of this vocabulary has any bytes");
}
