/**
 * Which tokens may come next. Most can be told from a rule's state alone, whatever called the rule:
 * these are computed once a state. Of the others, which end the rule on their way, the places in the
 * token tree are kept where it ends, and the walk goes on from there for what comes after the call.
 *
 * The idea is XGrammar's (Dong et al., arXiv 2411.15100); here what goes on after a call is kept as
 * well, by the set of places and the state, so that nothing is walked twice.
 */
import type { LinkedRules } from "./linked_rules.ts";
import { Positions } from "./positions.ts";
import { addWalk, type Frontier, TokenWalker, type Walk } from "./token_walk.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";

/** Kilobytes of positions before they are started anew: see `Positions.size`. */
const MAX_POSITIONS_SIZE = 4096;
/** Masks of whole positions that are kept: a megabyte for a vocabulary of 128k. */
const MAX_MASKS = 64;
/** Frontiers that are known to be equal to others. */
const MAX_FRONTIERS = 256;
const ROOT = [0];

/** Shared by all texts of a grammar. */
export class Masks {
  static #count = 0;
  /** In keys of walks, which all grammars of a vocabulary keep together. */
  readonly #id = Masks.#count++;
  readonly #rules: LinkedRules;
  readonly #vocabulary: GrammarVocabulary;
  /** Of texts. */
  #positions: Positions;
  /** Of walks: from a state on, whatever it was called from. */
  #walkPositions: Positions;
  readonly #frontiers = new Map<number, Frontier>();
  /** By position; the one that was asked for last is at the end. */
  readonly #masks = new Map<number, Uint32Array>();
  #firstMask: Uint32Array | null = null;

  constructor(rules: LinkedRules, vocabulary: GrammarVocabulary) {
    this.#rules = rules;
    this.#vocabulary = vocabulary;
    this.#positions = new Positions(rules);
    this.#walkPositions = new Positions(rules);
  }

  /** Where positions of texts are numbered. It changes when there are too many of them. */
  get positions(): Positions {
    if (this.#positions.size > MAX_POSITIONS_SIZE) {
      this.#positions = new Positions(this.#rules);
      this.#masks.clear();
    }
    return this.#positions;
  }

  /** Computes what a state needs, unless it is there. */
  prepare(state: number): void {
    this.#walkFrom(state);
  }

  /** Frees what only walks need, until the next one. */
  rest(): void {
    this.#walkPositions = new Positions(this.#rules);
  }

  /** Before the first token, as tokenizers may drop something of it. */
  firstMask(): Uint32Array {
    this.#firstMask ??= this.#makeFirstMask();
    return this.#firstMask;
  }

  /** @param position Of `positions`. */
  maskAt(position: number): Uint32Array {
    const mask = this.#masks.get(position) ?? this.#makeMask(position);
    this.#masks.delete(position);
    this.#masks.set(position, mask);
    if (this.#masks.size > MAX_MASKS) this.#masks.delete(this.#masks.keys().next().value!);
    return mask;
  }

  #makeFirstMask(): Uint32Array {
    const { firstTree, maskLength } = this.#vocabulary;
    const positions = new Positions(this.#rules);
    const start = positions.at(this.#rules.starts[0]);
    const mask = new Uint32Array(maskLength);
    addWalk(mask, new TokenWalker(firstTree, maskLength).walk(positions, start, ROOT));
    if (positions.completes(start)) this.#addEnds(mask);
    return mask;
  }

  #makeMask(position: number): Uint32Array {
    const positions = this.#positions;
    const mask = new Uint32Array(this.#vocabulary.maskLength);
    if (positions.completes(position)) this.#addEnds(mask);
    const ended: { frontier: Frontier; returns: number }[] = [];
    const add = (walk: Walk, returns: number) => {
      addWalk(mask, walk);
      if (walk.frontier !== null) ended.push({ frontier: walk.frontier, returns });
    };
    for (const { state, returns } of positions.kernel(position)) {
      add(this.#walkFrom(state), returns);
    }
    const seen = new Set<string>();
    // The list grows while it is run through.
    for (const { frontier, returns } of ended) {
      const key = `${frontier.id}:${returns}`;
      if (seen.has(key)) continue;
      seen.add(key);
      for (const back of positions.returnsFrom(returns)) {
        add(this.#continue(frontier, back.state), back.returns);
      }
    }
    return mask;
  }

  #addEnds(mask: Uint32Array): void {
    for (const id of this.#vocabulary.eosTokenIds) mask[id >> 5] |= 1 << (id & 31);
  }

  #walkFrom(state: number): Walk {
    const key = this.#rules.shareKeys[state] || `${this.#id}:${state}`;
    const { walks } = this.#vocabulary;
    const known = walks.get(key);
    if (known !== undefined) return known;
    const walk = this.#walk(state, ROOT);
    walks.set(key, walk);
    return walk;
  }

  #continue(frontier: Frontier, state: number): Walk {
    const key = `${this.#id}:${state}:${frontier.id}`;
    const { walks } = this.#vocabulary;
    const known = walks.get(key);
    if (known !== undefined) return known;
    const walk = this.#walk(state, frontier.nodes);
    if (walk.frontier !== null) walk.frontier = this.#interned(walk.frontier);
    walks.set(key, walk);
    return walk;
  }

  #walk(state: number, nodes: ArrayLike<number>): Walk {
    if (this.#walkPositions.size > MAX_POSITIONS_SIZE) {
      this.#walkPositions = new Positions(this.#rules);
    }
    const positions = this.#walkPositions;
    return this.#vocabulary.walker.walk(positions, positions.at(state), nodes);
  }

  /** Equal frontiers are one, so that what goes on from them is found again at any depth. */
  #interned(frontier: Frontier): Frontier {
    const hash = hashOf(frontier.nodes);
    const known = this.#frontiers.get(hash);
    if (known !== undefined && areEqual(known.nodes, frontier.nodes)) return known;
    if (this.#frontiers.size > MAX_FRONTIERS) this.#frontiers.clear();
    this.#frontiers.set(hash, frontier);
    return frontier;
  }
}

/** FNV-1a over words. */
function hashOf(values: Int32Array): number {
  let hash = 0x811c9dc5;
  for (const value of values) hash = Math.imul(hash ^ value, 0x01000193);
  return hash;
}

function areEqual(a: Int32Array, b: Int32Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}
