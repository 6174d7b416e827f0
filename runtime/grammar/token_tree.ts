/** A vocabulary's tokens as a tree over their bytes. */
import type { Workload } from "./workload.ts";

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
  /** Bytes of the longest way down from a node. */
  readonly heights: Uint16Array;
  /** By node, a bit for each of `BYTE_CLASSES`: all bytes below are of that class. */
  readonly classesBelow: Uint8Array;
}

/** Bytes that rules often do not tell apart: letters and digits; those and what prose has. */
export const BYTE_CLASSES: readonly (readonly number[])[] = [
  /[A-Za-z0-9]/,
  /[A-Za-z0-9 .,;:_'()!?-]/,
]
  .map((pattern) =>
    [...Array(128).keys()].filter((byte) => pattern.test(String.fromCharCode(byte)))
  );

/** Longer tokens are never allowed: none is known that is half as long. */
const MAX_TOKEN_BYTES = 1024;

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

/** @param bytesOf By token; none or very many: it is left out. */
export async function createTokenTree(
  vocabSize: number,
  bytesOf: (id: number) => Uint8Array,
  work: Workload,
): Promise<TokenTree> {
  const table = new TokenTable();
  for (let id = 0; id < vocabSize; id++) {
    if (id % 256 === 0) await work.pause();
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
    const bytes = Uint8Array.from(this.#bytes);
    const depths = Uint16Array.from(this.#depths);
    return {
      bytes,
      depths,
      ...summaries(bytes, depths),
      ends: subtreeEnds(this.#depths),
      tokenStarts: Int32Array.from([...this.#tokenStarts, this.#tokens.length]),
      tokens: Int32Array.from(this.#tokens),
      maxDepth: this.#depths.reduce((most, depth) => Math.max(most, depth), 0),
    };
  }
}

/** Of what is below each node. Children come after their parents, so it goes backwards. */
function summaries(bytes: Uint8Array, depths: Uint16Array) {
  const heights = new Uint16Array(bytes.length);
  const classesBelow = new Uint8Array(bytes.length).fill(255);
  const classesOf = Uint8Array.from(
    { length: 256 },
    (_, byte) =>
      BYTE_CLASSES.reduce((bits, known, i) => bits | (known.includes(byte) ? 1 << i : 0), 0),
  );
  // The last nodes of each depth that were not given to a parent yet, together.
  const height = new Int32Array(MAX_TOKEN_BYTES + 2).fill(-1);
  const classes = new Uint8Array(MAX_TOKEN_BYTES + 2).fill(255);
  for (let node = bytes.length - 1; node >= 0; node--) {
    const depth = depths[node];
    heights[node] = height[depth + 1] + 1;
    classesBelow[node] = classes[depth + 1];
    height[depth] = Math.max(height[depth], heights[node]);
    classes[depth] &= classesBelow[node] & classesOf[bytes[node]];
    height[depth + 1] = -1;
    classes[depth + 1] = 255;
  }
  return { heights, classesBelow };
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
