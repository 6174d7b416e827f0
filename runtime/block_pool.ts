/**
 * The KV cache's blocks: who holds which, and which of them later sequences may read. A full block is
 * known by its tokens and all those before it, so that a sequence that begins with the same tokens
 * need not compute them again: keys and values depend on nothing else. Blocks that nobody holds stay
 * readable until their memory is needed; those that were left first go first.
 *
 * The tree of blocks by tokens is that of SGLang's RadixAttention (arXiv 2312.07104), with whole
 * blocks for edges.
 */
import { KV_BLOCK_POSITIONS } from "../codegen/attention/cache.ts";

/** A full block in the tree. Its tokens are the edge from its parent. */
interface KnownBlock {
  readonly block: number;
  readonly key: string;
  readonly siblings: Map<string, KnownBlock>;
  readonly children: Map<string, KnownBlock>;
  /** Sequences that hold it. Never more than hold its parent. */
  holders: number;
}

export interface BlockCounts {
  total: number;
  /** Held by sequences. */
  used: number;
  /** Held by nobody, and readable. */
  cached: number;
  free: number;
}

export class BlockPool {
  readonly #free: number[];
  readonly #roots = new Map<string, KnownBlock>();
  /** Known blocks that nobody holds, the longest unused first; a child always before its parent. */
  readonly #unheld = new Set<KnownBlock>();

  constructor(readonly count: number) {
    // Low numbers are given out first, so that a short conversation touches little memory.
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  get counts(): BlockCounts {
    const free = this.#free.length;
    const cached = this.#unheld.size;
    return { total: this.count, used: this.count - free - cached, cached, free };
  }

  /** Blocks that could be taken now. */
  get available(): number {
    return this.#free.length + this.#unheld.size;
  }

  /** Memory of a new sequence, none yet. */
  open(): SequenceMemory {
    return new SequenceMemory(this, this.#roots);
  }

  /** @returns A block to write, or null when all are held. */
  take(): number | null {
    return this.#free.pop() ?? this.#forgetOldest();
  }

  give(block: number): void {
    this.#free.push(block);
  }

  hold(known: KnownBlock): void {
    known.holders++;
    this.#unheld.delete(known);
  }

  /** The children of a block must be let go before it. */
  letGo(known: KnownBlock): void {
    if (--known.holders === 0) this.#unheld.add(known);
  }

  #forgetOldest(): number | null {
    const { value: oldest } = this.#unheld.values().next();
    if (oldest === undefined) return null;
    this.#unheld.delete(oldest);
    oldest.siblings.delete(oldest.key);
    return oldest.block;
  }
}

/** One sequence's blocks: known ones first, then its own. */
export class SequenceMemory {
  /** Block i holds positions 16i to 16i + 15. */
  readonly blocks: number[] = [];
  readonly #known: KnownBlock[] = [];
  /** Of the sequence's first blocks, made once: a waiting sequence is looked up before every step. */
  readonly #keys: string[] = [];

  constructor(
    private readonly pool: BlockPool,
    private readonly roots: Map<string, KnownBlock>,
  ) {}

  /** How many of `blocks`, from the first on, others may read. */
  get knownBlocks(): number {
    return this.#known.length;
  }

  /** Blocks that hold `positions` tokens. */
  static blocksFor(positions: number): number {
    return Math.ceil(positions / KV_BLOCK_POSITIONS);
  }

  /** Known blocks that `ids` begin with. Nothing is held by it. */
  #find(ids: readonly number[]): KnownBlock[] {
    const found: KnownBlock[] = [];
    let level = this.roots;
    while ((found.length + 1) * KV_BLOCK_POSITIONS <= ids.length) {
      const known = level.get(this.#keyAt(ids, found.length));
      if (known === undefined) break;
      level = known.children;
      found.push(known);
    }
    return found;
  }

  /** How many tokens of `ids`, from the first on, are in known blocks. */
  knownTokens(ids: readonly number[]): number {
    return this.#find(ids).length * KV_BLOCK_POSITIONS;
  }

  /**
   * Whether another sequence is about to compute the block of `ids` that is the first one unknown.
   *
   * @param all The other's tokens, those to come included.
   */
  isAhead(other: SequenceMemory, ids: readonly number[], all: readonly number[]): boolean {
    const found = this.#find(ids);
    const start = found.length * KV_BLOCK_POSITIONS;
    const end = start + KV_BLOCK_POSITIONS;
    if (other.#known.length !== found.length || Math.min(ids.length, all.length) < end) {
      return false;
    }
    // The same block is reached by the same tokens only.
    if (other.#known.at(-1) !== found.at(-1)) return false;
    for (let i = start; i < end; i++) if (ids[i] !== all[i]) return false;
    return true;
  }

  /**
   * Holds the known blocks that `ids` begin with, in a memory that is empty yet.
   *
   * @returns The tokens in them.
   */
  reuse(ids: readonly number[]): number {
    for (const known of this.#find(ids)) {
      this.pool.hold(known);
      this.#known.push(known);
      this.blocks.push(known.block);
    }
    return this.#known.length * KV_BLOCK_POSITIONS;
  }

  /** Makes room for `positions` tokens; false, and nothing is taken, where there is not enough. */
  reserve(positions: number): boolean {
    const missing = SequenceMemory.blocksFor(positions) - this.blocks.length;
    if (missing > this.pool.available) return false;
    for (let i = 0; i < missing; i++) this.blocks.push(this.pool.take()!);
    return true;
  }

  /**
   * Lets others read the blocks that are full by now.
   *
   * @param ids All tokens whose keys and values are in the memory.
   */
  publish(ids: readonly number[]): void {
    while ((this.#known.length + 1) * KV_BLOCK_POSITIONS <= ids.length) this.#publishNext(ids);
  }

  #publishNext(ids: readonly number[]): void {
    const index = this.#known.length;
    const siblings = this.#level;
    const key = this.#keyAt(ids, index);
    let known = siblings.get(key);
    if (known === undefined) {
      known = { block: this.blocks[index], key, siblings, children: new Map(), holders: 0 };
      siblings.set(key, known);
    } else {
      // Another sequence computed the same at the same time: one of the two is enough.
      this.pool.give(this.blocks[index]);
      this.blocks[index] = known.block;
    }
    this.pool.hold(known);
    this.#known.push(known);
  }

  /** Lets all blocks go; the memory is empty again. */
  release(): void {
    const own = this.blocks.splice(0).slice(this.#known.length);
    for (const block of own.reverse()) this.pool.give(block);
    for (const known of this.#known.splice(0).reverse()) this.pool.letGo(known);
  }

  /** @param ids All of the sequence's tokens: they never change, they only become more. */
  #keyAt(ids: readonly number[], index: number): string {
    const start = index * KV_BLOCK_POSITIONS;
    return this.#keys[index] ??= ids.slice(start, start + KV_BLOCK_POSITIONS).join();
  }

  /** Where the block after the last known one is looked for. */
  get #level(): Map<string, KnownBlock> {
    return this.#known.at(-1)?.children ?? this.roots;
  }
}
