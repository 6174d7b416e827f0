/**
 * Where texts can be in a grammar: sets of (state, what was called from where), each made once and
 * numbered, and how a byte leads from one to the next.
 *
 * Returns of a call are a set of (state to go on at, returns of that rule), so that different ways
 * to the same state share one item however many there are: time and memory are polynomial for
 * ambiguous grammars too (Lang 1974; Scott and Johnstone, "GLL Parsing", 2010).
 */
import type { LinkedRules } from "./linked_rules.ts";
import { BYTE_CLASSES } from "./token_tree.ts";
import { GrammarError } from "./types.ts";

/** No text goes on this way. */
export const DEAD = -1;
const UNKNOWN = -2;
/** Of positions that nothing was asked of often enough. */
const NO_ROW = new Int32Array(256).fill(UNKNOWN);

/** Of `Returns`: the text itself ends, or what a walk started from does. */
const OUT = -1;
/** An edge is state * MAX_RETURNS + returns: exact as a double. */
const MAX_RETURNS = 2 ** 28;

/** The text is in `state`; when its rule ends it goes on at one of `returns`. */
export interface Item {
  state: number;
  returns: number;
}

interface Position {
  /** Items after a byte and what ended by it, before further calls. */
  kernel: readonly Item[];
  /** With calls made; null until needed. */
  open: readonly Item[] | null;
  advances: number;
}

/** Ways to go on after one rule; work grows with their square. Unambiguous grammars have a few. */
const MAX_WAYS = 512;
/** Rows take a kilobyte. */
const ADVANCES_BEFORE_ROW = 3;

export class Positions {
  readonly #rules: LinkedRules;
  readonly #positions: Position[] = [];
  readonly #positionIds = new Map<string, number>();
  /** By number: sorted edges. */
  readonly #returns: number[][] = [];
  readonly #returnIds = new Map<string, number>();
  /** By position: targets by byte; negative: ask `advance`. */
  readonly rows: Int32Array[] = [];
  /** By position: everything has ended, and the text is whole. */
  readonly completing: boolean[] = [];
  #numRows = 0;
  /** By class and position. */
  readonly #commonNexts: number[][] = BYTE_CLASSES.map(() => []);

  constructor(rules: LinkedRules) {
    this.#rules = rules;
    this.#returnsOf([OUT]);
  }

  /** Kilobytes, roughly. */
  get size(): number {
    return this.#numRows + (this.#positions.length >> 1) + (this.#returns.length >> 2);
  }

  /** At `state` of a rule that leads out of here when it ends. */
  at(state: number): number {
    const completes = this.#rules.canEnd[state] === 1;
    return this.#intern([{ state, returns: 0 }], completes);
  }

  kernel(id: number): readonly Item[] {
    return this.#positions[id].kernel;
  }

  completes(id: number): boolean {
    return this.completing[id];
  }

  /** Where `returns` lead: pairs of a state and further returns. */
  returnsFrom(returns: number): Item[] {
    return this.#returns[returns].filter((edge) => edge !== OUT).map(unpacked);
  }

  /** The position after a byte, or DEAD. */
  advance(id: number, byte: number): number {
    const known = this.rows[id][byte];
    return known !== UNKNOWN ? known : this.#advanceAnew(id, byte);
  }

  #advanceAnew(id: number, byte: number): number {
    const position = this.#positions[id];
    const next = this.#next(position, byte);
    if (this.rows[id] === NO_ROW && ++position.advances > ADVANCES_BEFORE_ROW) {
      this.rows[id] = NO_ROW.slice();
      this.#numRows++;
    }
    if (this.rows[id] !== NO_ROW) this.rows[id][byte] = next;
    return next;
  }

  /** Any `steps` bytes of a class of `BYTE_CLASSES` go on from here, and end nothing. */
  areFree(id: number, ofClass: number, steps: number): boolean {
    let position = id;
    for (let step = 0; step < steps; step++) {
      const next = this.#commonNext(position, ofClass);
      if (next === DEAD) return false;
      if (next === position) return true;
      position = next;
    }
    return true;
  }

  /** Where every byte of a class leads, or DEAD if they lead to different places or end something. */
  #commonNext(id: number, ofClass: number): number {
    const known = this.#commonNexts[ofClass][id];
    if (known !== undefined) return known;
    const [first, ...others] = BYTE_CLASSES[ofClass];
    const next = this.advance(id, first);
    const isCommon = next !== DEAD && !this.completing[next] &&
      others.every((byte) => this.advance(id, byte) === next);
    return this.#commonNexts[ofClass][id] = isCommon ? next : DEAD;
  }

  /** The same position of other positions of the same grammar. */
  adopt(other: Positions, id: number): number {
    const { kernel } = other.#positions[id];
    const reached = other.#reachableReturns(kernel.map(({ returns }) => returns));
    // Returns are made after those that they lead to, so their numbers are larger.
    const translated = new Map<number, number>();
    for (const returns of reached) {
      const edges = other.#returns[returns].map((edge) => {
        if (edge === OUT) return OUT;
        const item = unpacked(edge);
        return packed(item.state, translated.get(item.returns)!);
      });
      translated.set(returns, this.#returnsOf(edges));
    }
    const items = kernel.map(({ state, returns }) => ({
      state,
      returns: translated.get(returns)!,
    }));
    return this.#intern(items, other.completing[id]);
  }

  #reachableReturns(from: readonly number[]): number[] {
    const reached = new Set(from);
    // The set grows while it is run through.
    for (const returns of reached) {
      for (const { returns: further } of this.returnsFrom(returns)) reached.add(further);
    }
    return [...reached].sort((a, b) => a - b);
  }

  #next(position: Position, byte: number): number {
    position.open ??= this.#opened(position.kernel);
    const reached: Item[] = [];
    let isPlain = true;
    for (const { state, returns } of position.open) {
      const target = targetOf(this.#rules.edges[state], byte);
      if (target === DEAD) continue;
      isPlain &&= this.#rules.canEnd[target] === 0;
      reached.push({ state: target, returns });
    }
    if (reached.length === 0) return DEAD;
    if (isPlain && reached.length === 1) return this.#intern(reached, false);
    return this.#closed(reached);
  }

  /** With what comes after rules that can end; items of one state are joined. */
  #closed(reached: readonly Item[]): number {
    const { canEnd, isTail } = this.#rules;
    const ways = new Map<number, Set<number>>();
    let completes = false;
    const pending: number[] = [];
    const add = ({ state, returns }: Item) => {
      const known = ways.get(state) ?? new Set();
      ways.set(state, known);
      for (const edge of this.#returns[returns]) {
        if (known.has(edge)) continue;
        known.add(edge);
        if (canEnd[state] === 1) pending.push(edge);
      }
    };
    reached.forEach(add);
    for (let edge = pending.pop(); edge !== undefined; edge = pending.pop()) {
      if (edge === OUT) completes = true;
      else add(unpacked(edge));
    }
    const kernel: Item[] = [];
    for (const [state, edges] of ways) {
      if (isTail[state] === 0) kernel.push({ state, returns: this.#returnsOf([...edges]) });
    }
    return this.#intern(kernel, completes);
  }

  /** Items with their calls made. Rules are started after all that can call them at once. */
  #opened(kernel: readonly Item[]): Item[] {
    const { starts, rank } = this.#rules;
    const open: Item[] = [];
    const callers = new Map<number, number[]>();
    for (const { state, returns } of kernel) this.#open(state, returns, open, callers);
    while (callers.size > 0) {
      let rule = -1;
      for (const called of callers.keys()) {
        if (rule === -1 || rank[called] < rank[rule]) rule = called;
      }
      const returns = this.#returnsOf(callers.get(rule)!);
      callers.delete(rule);
      this.#open(starts[rule], returns, open, callers);
    }
    return open;
  }

  #open(state: number, returns: number, open: Item[], callers: Map<number, number[]>): void {
    for (const skipped of this.#rules.skips[state]) {
      open.push({ state: skipped, returns });
      for (const { rule, to } of this.#rules.calls[skipped]) {
        const edges = callers.get(rule) ?? [];
        callers.set(rule, edges);
        // Nothing comes after this call, so its end is the end of this rule: a list that is
        // written as a recursion does not grow.
        if (this.#rules.isTail[to] === 1) {
          for (const edge of this.#returns[returns]) edges.push(edge);
        } else edges.push(packed(to, returns));
      }
    }
  }

  #returnsOf(edges: readonly number[]): number {
    const sorted = edges.length === 1 ? [...edges] : [...new Set(edges)].sort((a, b) => a - b);
    if (sorted.length > MAX_WAYS) throw tooAmbiguous();
    const key = sorted.join();
    const known = this.#returnIds.get(key);
    if (known !== undefined) return known;
    const id = this.#returns.push(sorted) - 1;
    this.#returnIds.set(key, id);
    return id;
  }

  #intern(kernel: Item[], completes: boolean): number {
    if (kernel.length > 1) kernel.sort((a, b) => a.state - b.state);
    let key = completes ? "!" : "";
    for (const { state, returns } of kernel) key += `${state}:${returns},`;
    const known = this.#positionIds.get(key);
    if (known !== undefined) return known;
    const id = this.#positions.push({ kernel, open: null, advances: 0 }) - 1;
    this.rows.push(NO_ROW);
    this.completing.push(completes);
    this.#positionIds.set(key, id);
    return id;
  }
}

function tooAmbiguous(): GrammarError {
  return new GrammarError(
    `Cannot follow this grammar any further as it is too ambiguous: a text can be read in more than ` +
      `${MAX_WAYS} ways, write each repetition in one way only`,
  );
}

function packed(state: number, returns: number): number {
  return state * MAX_RETURNS + returns;
}

function unpacked(edge: number): Item {
  return { state: Math.floor(edge / MAX_RETURNS), returns: edge % MAX_RETURNS };
}

function targetOf(edges: Int32Array, byte: number): number {
  for (let i = 0; i < edges.length; i += 3) {
    if (byte < edges[i]) return DEAD;
    if (byte <= edges[i + 1]) return edges[i + 2];
  }
  return DEAD;
}
