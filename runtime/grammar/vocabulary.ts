/** A vocabulary's tokens as bytes, in the shape that masks are made from: made once a model. */
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

/**
 * All tokens by their bytes, as a tree in preorder: the nodes below node n are n + 1 ... ends[n] - 1.
 * Node 0 is the root.
 */
export interface TokenTree {
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly ends: Int32Array;
  /** Tokens of node n: tokens[tokenStarts[n]] ... tokens[tokenStarts[n + 1] - 1]. */
  readonly tokenStarts: Int32Array;
  readonly tokens: Int32Array;
  readonly maxDepth: number;
}

/** Words of all grammars' walks: 96 MB. */
const MAX_WALK_WORDS = 24 << 20;
/** Longer tokens are never allowed: none is known that is half as long. */
const MAX_TOKEN_BYTES = 1024;

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
    const later = (id: number) => source.tokenBytes(id);
    const tree = await treeOf(source, later, work);
    const first = source.firstTokenBytes?.bind(source);
    const firstTree = first === undefined ? tree : await treeOf(source, first, work);
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
    const source = this.#source;
    if (id < 0 || id >= this.vocabSize || source.isSpecial(id)) return new Uint8Array();
    const bytes = isFirst ? source.firstTokenBytes?.(id) : undefined;
    return bytes ?? source.tokenBytes(id);
  }
}

/** Bytes of all tokens that may be used, one after the other. */
class TokenTable {
  readonly ids: number[] = [];
  #bytes = new Uint8Array(1 << 20);
  readonly #starts: number[] = [];
  readonly #lengths: number[] = [];
  #end = 0;

  add(id: number, bytes: Uint8Array): void {
    if (this.#end + bytes.length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#bytes.length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#end);
    this.ids.push(id);
    this.#starts.push(this.#end);
    this.#lengths.push(bytes.length);
    this.#end += bytes.length;
  }

  lengthOf(index: number): number {
    return this.#lengths[index];
  }

  byteAt(index: number, i: number): number {
    return this.#bytes[this.#starts[index] + i];
  }

  /** Bytes that two tokens begin with together. */
  common(a: number, b: number): number {
    const most = Math.min(this.#lengths[a], this.#lengths[b]);
    let length = 0;
    while (length < most && this.byteAt(a, length) === this.byteAt(b, length)) length++;
    return length;
  }

  /** Their order by bytes. */
  compare(a: number, b: number): number {
    const length = this.common(a, b);
    const isPrefix = length === this.#lengths[a] || length === this.#lengths[b];
    return isPrefix
      ? this.#lengths[a] - this.#lengths[b]
      : this.byteAt(a, length) - this.byteAt(b, length);
  }

  /** The first two bytes as a number, in the same order. */
  beginning(index: number): number {
    const second = this.#lengths[index] > 1 ? this.byteAt(index, 1) + 1 : 0;
    return this.byteAt(index, 0) * 257 + second;
  }
}

async function treeOf(
  source: VocabularySource,
  bytesOf: (id: number) => Uint8Array,
  work: Workload,
): Promise<TokenTree> {
  const table = new TokenTable();
  const { eosTokenIds } = source;
  for (let id = 0; id < source.vocabSize; id++) {
    if (id % 256 === 0) await work.pause();
    if (source.isSpecial(id) || eosTokenIds.includes(id)) continue;
    const bytes = bytesOf(id);
    if (bytes.length > 0 && bytes.length <= MAX_TOKEN_BYTES) table.add(id, bytes);
  }
  const growing = new GrowingTree(table);
  for (const group of groupsOf(table)) {
    await work.pause();
    // A group is a few thousand tokens at most; sorting all at once would take too long.
    for (const index of group.sort((a, b) => table.compare(a, b))) growing.add(index);
  }
  return growing.finished();
}

/** Tokens by their first two bytes, in order. */
function groupsOf(table: TokenTable): number[][] {
  const groups: number[][] = [];
  for (let index = 0; index < table.ids.length; index++) {
    (groups[table.beginning(index)] ??= []).push(index);
  }
  return groups.filter((group) => group !== undefined);
}

/** Tokens come in the order of their bytes, so that each goes on from the one before it. */
class GrowingTree {
  readonly #table: TokenTable;
  readonly #bytes = [0];
  readonly #depths = [0];
  readonly #tokenStarts = [0];
  readonly #tokens: number[] = [];
  #last: number | null = null;

  constructor(table: TokenTable) {
    this.#table = table;
  }

  add(index: number): void {
    const shared = this.#last === null ? 0 : this.#table.common(this.#last, index);
    for (let i = shared; i < this.#table.lengthOf(index); i++) {
      this.#bytes.push(this.#table.byteAt(index, i));
      this.#depths.push(i + 1);
      this.#tokenStarts.push(this.#tokens.length);
    }
    this.#tokens.push(this.#table.ids[index]);
    this.#last = index;
  }

  finished(): TokenTree {
    return {
      bytes: Uint8Array.from(this.#bytes),
      depths: Uint16Array.from(this.#depths),
      ends: subtreeEnds(this.#depths),
      tokenStarts: Int32Array.from([...this.#tokenStarts, this.#tokens.length]),
      tokens: Int32Array.from(this.#tokens),
      maxDepth: this.#depths.reduce((most, depth) => Math.max(most, depth), 0),
    };
  }
}

/** Below a node are all that follow it, up to the next one that is not deeper. */
function subtreeEnds(depths: readonly number[]): Int32Array {
  const ends = new Int32Array(depths.length).fill(depths.length);
  const open: number[] = [];
  for (const [node, depth] of depths.entries()) {
    while (open.length > 0 && depths[open.at(-1)!] >= depth) ends[open.pop()!] = node;
    open.push(node);
  }
  return ends;
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
