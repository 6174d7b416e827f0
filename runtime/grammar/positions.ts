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
    return this.#intern(new Map([[state, 0]]), completes);
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
    const items = kernel.map((item) => [item.state, translated.get(item.returns)!] as const);
    return this.#intern(new Map(items), other.completing[id]);
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
    const kernel = new Map<number, number>();
    for (const { state, returns } of position.open) {
      const target = targetOf(this.#rules.edges[state], byte);
      if (target !== DEAD) this.#merge(kernel, target, returns);
    }
    if (kernel.size === 0) return DEAD;
    const completes = this.#close(kernel);
    return this.#intern(kernel, completes);
  }

  /** Adds what comes after rules that can end. True if the text can. */
  #close(kernel: Map<number, number>): boolean {
    let completes = false;
    const pending = [...kernel.keys()];
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      if (this.#rules.canEnd[state] === 0) continue;
      for (const edge of this.#returns[kernel.get(state)!]) {
        if (edge === OUT) {
          completes = true;
          continue;
        }
        const { state: back, returns } = unpacked(edge);
        if (this.#merge(kernel, back, returns)) pending.push(back);
      }
    }
    for (const state of kernel.keys()) if (this.#rules.isTail[state] === 1) kernel.delete(state);
    return completes;
  }

  /** True if there is something new. */
  #merge(kernel: Map<number, number>, state: number, returns: number): boolean {
    const known = kernel.get(state);
    if (known === returns) return false;
    const merged = known === undefined
      ? returns
      : this.#returnsOf([...this.#returns[known], ...this.#returns[returns]]);
    kernel.set(state, merged);
    return merged !== known;
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
    const key = sorted.join();
    const known = this.#returnIds.get(key);
    if (known !== undefined) return known;
    const id = this.#returns.push(sorted) - 1;
    this.#returnIds.set(key, id);
    return id;
  }

  #intern(items: ReadonlyMap<number, number>, completes: boolean): number {
    const kernel = Array.from(items, ([state, returns]) => ({ state, returns }));
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
