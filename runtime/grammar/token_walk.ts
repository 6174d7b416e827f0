/** Walks over a vocabulary's token tree along a grammar: which tokens go on, and where they end it. */
import { DEAD, type Positions } from "./positions.ts";
import { BYTE_CLASSES, type TokenTree } from "./token_tree.ts";

/** Nodes below one that are worth a look at all of them at once. */
const LARGE_SUBTREE = 3;

/** Nodes of the token tree at which a rule has ended. */
export class Frontier {
  static #count = 0;
  readonly id: number = Frontier.#count++;
  constructor(readonly nodes: Int32Array) {}
}

/** What is allowed after a state as long as its rule lasts, and where it ends. */
export interface Walk {
  /** Their ids, or a whole mask where that is smaller; the other one is null. */
  tokens: Int32Array | null;
  mask: Uint32Array | null;
  frontier: Frontier | null;
}

/** Words of memory. */
export function wordsOf({ tokens, mask, frontier }: Walk): number {
  const OVERHEAD = 24;
  return OVERHEAD + (tokens?.length ?? 0) + (mask?.length ?? 0) + (frontier?.nodes.length ?? 0);
}

export function addWalk(mask: Uint32Array, walk: Walk): void {
  if (walk.mask !== null) { for (let i = 0; i < mask.length; i++) mask[i] |= walk.mask[i]; }
  if (walk.tokens !== null) { for (const id of walk.tokens) mask[id >> 5] |= 1 << (id & 31); }
}

/** Walks one tree; what it found is kept in buffers that the next walk uses again. */
export class TokenWalker {
  readonly #tree: TokenTree;
  readonly #maskLength: number;
  /** Positions by depth. */
  readonly #path: Int32Array;
  #found: Int32Array;
  #numFound = 0;
  readonly #ended: Int32Array;
  #numEnded = 0;
  /** By node: the walk that found it ended last. */
  readonly #endedIn: Int32Array;
  #walk = 0;

  constructor(tree: TokenTree, maskLength: number) {
    this.#tree = tree;
    this.#maskLength = maskLength;
    this.#path = new Int32Array(tree.maxDepth + 1);
    this.#found = new Int32Array(1024);
    this.#ended = new Int32Array(tree.ends.length);
    this.#endedIn = new Int32Array(tree.ends.length);
  }

  /** What goes on below some nodes when the text is at `start` at each of them. */
  walk(positions: Positions, start: number, nodes: ArrayLike<number>): Walk {
    this.#walk++;
    this.#numFound = 0;
    this.#numEnded = 0;
    for (let i = 0; i < nodes.length; i++) this.#walkBelow(positions, start, nodes[i]);
    return this.#result();
  }

  /** The loop runs a quarter of a million times for what is allowed inside of a string. */
  #walkBelow(positions: Positions, start: number, top: number): void {
    const { bytes, depths, ends, tokenStarts, tokens } = this.#tree;
    const { rows, completing } = positions;
    const path = this.#path;
    const end = ends[top];
    const found = this.#roomFor(tokenStarts[end] - tokenStarts[top]);
    let numFound = this.#numFound;
    path[depths[top]] = start;
    // At the root nothing was said; what has ended before is a part of the position already.
    if (top > 0 && completing[start]) this.#addEnded(top);
    for (let node = top + 1; node < end;) {
      const depth = depths[node];
      let next = rows[path[depth - 1]][bytes[node]];
      if (next < 0) next = positions.advance(path[depth - 1], bytes[node]);
      if (next === DEAD) {
        node = ends[node];
        continue;
      }
      path[depth] = next;
      if (completing[next]) this.#addEnded(node);
      const isLarge = ends[node] - node > LARGE_SUBTREE;
      const first = node;
      node = isLarge && this.#isAllAllowed(positions, next, node) ? ends[node] : node + 1;
      for (let i = tokenStarts[first]; i < tokenStarts[node]; i++) found[numFound++] = tokens[i];
    }
    this.#numFound = numFound;
  }

  /** What is below a node need not be looked at if its bytes make no difference. */
  #isAllAllowed(positions: Positions, position: number, node: number): boolean {
    const { heights, classesBelow } = this.#tree;
    for (let ofClass = 0; ofClass < BYTE_CLASSES.length; ofClass++) {
      if ((classesBelow[node] >> ofClass & 1) === 0) continue;
      if (positions.areFree(position, ofClass, heights[node])) return true;
    }
    return false;
  }

  #roomFor(count: number): Int32Array {
    if (this.#numFound + count > this.#found.length) {
      const larger = new Int32Array(2 * (this.#numFound + count));
      larger.set(this.#found);
      this.#found = larger;
    }
    return this.#found;
  }

  #addEnded(node: number): void {
    if (this.#endedIn[node] === this.#walk) return;
    this.#endedIn[node] = this.#walk;
    this.#ended[this.#numEnded++] = node;
  }

  #result(): Walk {
    const found = this.#found.subarray(0, this.#numFound);
    const frontier = this.#numEnded === 0
      ? null
      : new Frontier(this.#ended.slice(0, this.#numEnded).sort());
    if (found.length < this.#maskLength) return { tokens: found.slice(), mask: null, frontier };
    const mask = new Uint32Array(this.#maskLength);
    for (const id of found) mask[id >> 5] |= 1 << (id & 31);
    return { tokens: null, mask, frontier };
  }
}
