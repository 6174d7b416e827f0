/**
 * Finite automata over numbers (code points or bytes) and calls of rules: expressions become
 * nondeterministic ones, these deterministic ones, which can be intersected and complemented.
 */
import type { EdgeSink, Encoder } from "./encoding.ts";
import type { Arc, Expression, RuleId } from "./expression.ts";
import { ANY, type Range } from "./ranges.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

export interface Edge extends Range {
  to: number;
}

export interface Call {
  rule: RuleId;
  to: number;
}

/** Starts in state 0. At most one way on for every symbol and every rule. */
export interface Dfa {
  /** By state: sorted, not overlapping. */
  edges: Edge[][];
  calls: Call[][];
  accepting: boolean[];
}

/** Memory of an automaton under construction: some hundred bytes a state. */
const MAX_STATES = 200_000;
/** States between two pauses. */
const PAUSE_STATES = 512;

/** Building goes on after each `yield`, so that other work can come in between. */
type Building = Generator<void, void, void>;

/** Starts in state 0 and accepts in state 1. */
export class Nfa implements EdgeSink {
  readonly edges: Edge[][] = [[], []];
  readonly calls: Call[][] = [[], []];
  readonly epsilons: number[][] = [[], []];
  readonly #work: Workload;
  #nextPause = PAUSE_STATES;

  constructor(work: Workload) {
    this.#work = work;
  }

  addState(): number {
    if (this.edges.length >= MAX_STATES) {
      throw new GrammarError(
        `Cannot compile this grammar as a rule of it needs more than ${MAX_STATES} states: ` +
          "use smaller repetitions and fewer alternatives",
      );
    }
    this.#work.spend(1);
    this.calls.push([]);
    this.epsilons.push([]);
    return this.edges.push([]) - 1;
  }

  addEdge(from: number, lo: number, hi: number, to: number): void {
    this.#work.spend(1);
    this.edges[from].push({ lo, hi, to });
  }

  addEpsilon(from: number, to: number): void {
    this.epsilons[from].push(to);
  }

  /** Makes everything that `expression` says lead from one state to the other. */
  *add(expression: Expression, encoder: Encoder, from: number, to: number): Building {
    yield* this.#pause();
    switch (expression.kind) {
      case "text":
        return yield* this.#addText(expression.text, encoder, from, to);
      case "set":
        for (const range of expression.ranges) encoder(this, range, from, to);
        return;
      case "sequence":
        return yield* this.#addSequence(expression.parts, encoder, from, to);
      case "choice":
        return yield* this.#addChoice(expression.parts, encoder, from, to);
      case "repeat":
        return yield* this.#addRepeat(expression, encoder, from, to);
      case "call":
        this.calls[from].push({ rule: expression.rule, to });
        return;
      case "automaton":
        return yield* this.#addAutomaton(expression.dfa, encoder, from, to);
      case "graph":
        return yield* this.#addGraph(expression, encoder, from, to);
    }
  }

  *#pause(): Building {
    if (this.edges.length < this.#nextPause) return;
    this.#nextPause = this.edges.length + PAUSE_STATES;
    yield;
  }

  *#addText(text: string, encoder: Encoder, from: number, to: number): Building {
    let state = from;
    for (const character of text) {
      yield* this.#pause();
      const point = character.codePointAt(0)!;
      const next = this.addState();
      encoder(this, { lo: point, hi: point }, state, next);
      state = next;
    }
    this.addEpsilon(state, to);
  }

  *#addSequence(
    parts: readonly Expression[],
    encoder: Encoder,
    from: number,
    to: number,
  ): Building {
    let state = from;
    for (const part of parts) {
      const next = this.addState();
      yield* this.add(part, encoder, state, next);
      state = next;
    }
    this.addEpsilon(state, to);
  }

  /** Every alternative has its own ends: a loop in one of them must not lead into another. */
  *#addChoice(parts: readonly Expression[], encoder: Encoder, from: number, to: number): Building {
    for (const part of parts) {
      const start = this.addState();
      const end = this.addState();
      this.addEpsilon(from, start);
      yield* this.add(part, encoder, start, end);
      this.addEpsilon(end, to);
    }
  }

  *#addRepeat(
    { part, min, max }: { part: Expression; min: number; max: number | null },
    encoder: Encoder,
    from: number,
    to: number,
  ): Building {
    let state = this.addState();
    this.addEpsilon(from, state);
    const count = max ?? min;
    for (let i = 0; i < count; i++) {
      const next = this.addState();
      if (i >= min) this.addEpsilon(state, to);
      yield* this.add(part, encoder, state, next);
      state = next;
    }
    if (max === null) {
      const end = this.addState();
      yield* this.add(part, encoder, state, end);
      this.addEpsilon(end, state);
    }
    this.addEpsilon(state, to);
  }

  *#addGraph(
    { numStates, arcs }: { numStates: number; arcs: readonly Arc[] },
    encoder: Encoder,
    from: number,
    to: number,
  ): Building {
    const states: number[] = [];
    while (states.length < numStates) {
      states.push(this.addState());
      yield* this.#pause();
    }
    this.addEpsilon(from, states[0]);
    for (const arc of arcs) yield* this.add(arc.part, encoder, states[arc.from], states[arc.to]);
    this.addEpsilon(states[1], to);
  }

  *#addAutomaton(dfa: Dfa, encoder: Encoder, from: number, to: number): Building {
    const states = dfa.edges.map(() => this.addState());
    this.addEpsilon(from, states[0]);
    for (const [i, state] of states.entries()) {
      yield* this.#pause();
      for (const edge of dfa.edges[i]) encoder(this, edge, state, states[edge.to]);
      if (dfa.accepting[i]) this.addEpsilon(state, to);
    }
  }
}

/** The automaton of an expression, over what the encoder makes of code points. */
export async function compileExpression(
  expression: Expression,
  encoder: Encoder,
  work: Workload,
): Promise<Dfa> {
  const nfa = new Nfa(work);
  for (const _ of nfa.add(expression, encoder, 0, 1)) await work.pause();
  return await minimized(await new Determinizer(nfa, work).run(), work);
}

/** Sets of states become states. */
class Determinizer {
  readonly #nfa: Nfa;
  readonly #work: Workload;
  readonly #ids = new Map<string, number>();
  readonly #sets: number[][] = [];
  readonly #seen: Int32Array;
  #mark = 0;

  constructor(nfa: Nfa, work: Workload) {
    this.#nfa = nfa;
    this.#work = work;
    this.#seen = new Int32Array(nfa.edges.length);
  }

  async run(): Promise<Dfa> {
    const dfa: Dfa = { edges: [], calls: [], accepting: [] };
    this.#idOf([0]);
    // New sets are appended while it runs.
    for (let id = 0; id < this.#sets.length; id++) {
      await this.#work.pause();
      const states = this.#sets[id];
      dfa.edges.push(this.#edgesOf(states));
      dfa.calls.push(this.#callsOf(states));
      dfa.accepting.push(states.includes(1));
      this.#sets[id] = [];
    }
    return dfa;
  }

  #idOf(states: readonly number[]): number {
    const closed = this.#closure(states);
    const key = closed.join();
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#sets.push(closed) - 1;
    this.#ids.set(key, id);
    return id;
  }

  /** With all that epsilons lead to; only states that matter, sorted. */
  #closure(states: readonly number[]): number[] {
    const mark = ++this.#mark;
    const pending = [...states];
    const closed: number[] = [];
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      if (this.#seen[state] === mark) continue;
      this.#seen[state] = mark;
      const { edges, calls, epsilons } = this.#nfa;
      if (state === 1 || edges[state].length + calls[state].length > 0) closed.push(state);
      pending.push(...epsilons[state]);
      this.#work.spend(1 + epsilons[state].length);
    }
    return closed.sort((a, b) => a - b);
  }

  #edgesOf(states: readonly number[]): Edge[] {
    const edges = states.flatMap((state) => this.#nfa.edges[state]);
    if (edges.length === 0) return [];
    const cuts = [...new Set(edges.flatMap(({ lo, hi }) => [lo, hi + 1]))].sort((a, b) => a - b);
    const indexOf = new Map(cuts.map((cut, i) => [cut, i]));
    const targets: number[][] = cuts.map(() => []);
    for (const { lo, hi, to } of edges) {
      const end = indexOf.get(hi + 1)!;
      this.#work.spend(end - indexOf.get(lo)!);
      for (let i = indexOf.get(lo)!; i < end; i++) targets[i].push(to);
    }
    const merged: Edge[] = [];
    for (const [i, to] of targets.entries()) {
      if (to.length > 0) addEdge(merged, cuts[i], cuts[i + 1] - 1, this.#idOf(to));
    }
    return merged;
  }

  #callsOf(states: readonly number[]): Call[] {
    const byRule = new Map<RuleId, number[]>();
    for (const { rule, to } of states.flatMap((state) => this.#nfa.calls[state])) {
      byRule.set(rule, [...byRule.get(rule) ?? [], to]);
    }
    return Array.from(byRule, ([rule, to]) => ({ rule, to: this.#idOf(to) }));
  }
}

function addEdge(edges: Edge[], lo: number, hi: number, to: number): void {
  const last = edges.at(-1);
  if (last !== undefined && last.to === to && last.hi === lo - 1) last.hi = hi;
  else edges.push({ lo, hi, to });
}

/** Larger automata are left as they are: nothing depends on their being the smallest ones. */
const MAX_MINIMIZED_STATES = 10_000;

/**
 * Joins states that do the same. Classes of states are split as long as their members lead to
 * different classes; only states before those that were split off are looked at again (after
 * Hopcroft, "An n log n algorithm for minimizing states in a finite automaton", 1971).
 */
async function minimized(dfa: Dfa, work: Workload): Promise<Dfa> {
  if (dfa.edges.length > MAX_MINIMIZED_STATES) return dfa;
  const partition = new Partition(dfa);
  while (partition.isUnstable) {
    await work.pause();
    work.spend(partition.splitOne());
  }
  const classes = inOrder(partition.classes);
  return partition.numClasses === dfa.edges.length ? dfa : quotient(dfa, classes);
}

class Partition {
  readonly classes: number[];
  readonly #dfa: Dfa;
  readonly #members: Set<number>[];
  readonly #sources: number[][];
  /** By class: states that may not belong to it. */
  readonly #doubtful = new Map<number, Set<number>>();

  constructor(dfa: Dfa) {
    this.#dfa = dfa;
    this.classes = dfa.accepting.map(Number);
    this.#members = [new Set(), new Set()];
    this.classes.forEach((own, state) => this.#members[own].add(state));
    this.#members.forEach((states, own) => this.#doubtful.set(own, new Set(states)));
    this.#sources = dfa.edges.map(() => []);
    for (const [from, edges] of dfa.edges.entries()) {
      for (const { to } of [...edges, ...dfa.calls[from]]) this.#sources[to].push(from);
    }
  }

  get numClasses(): number {
    return this.#members.filter(({ size }) => size > 0).length;
  }

  get isUnstable(): boolean {
    return this.#doubtful.size > 0;
  }

  /** Splits a class; returns how many states that took. */
  splitOne(): number {
    const [own, doubtful] = this.#doubtful.entries().next().value!;
    this.#doubtful.delete(own);
    const groups = this.#groups(own, doubtful);
    const sizes = groups.map(({ length }) => length);
    // The largest one keeps the number, so that few states change theirs.
    const numSettled = this.#members[own].size - doubtful.size;
    sizes[0] += numSettled;
    const largest = sizes.indexOf(Math.max(...sizes));
    const moved: number[] = [];
    for (const [i, group] of groups.entries()) {
      if (i === largest) continue;
      const settled = i === 0 ? this.#settled(own, doubtful) : [];
      moved.push(...this.#splitOff(own, [...settled, ...group]));
    }
    // Only now are all classes known that these belong to.
    for (const state of moved) this.#sources[state].forEach((source) => this.#doubt(source));
    return doubtful.size;
  }

  #settled(own: number, doubtful: ReadonlySet<number>): number[] {
    return [...this.#members[own]].filter((state) => !doubtful.has(state));
  }

  /** Doubtful states by where they lead. The first group, perhaps empty, is like all others. */
  #groups(own: number, doubtful: ReadonlySet<number>): number[][] {
    const groups = new Map<string, number[]>();
    for (const state of this.#members[own]) {
      if (doubtful.has(state)) continue;
      groups.set(this.#signature(state), []);
      break;
    }
    for (const state of doubtful) {
      const key = this.#signature(state);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [state]);
      else group.push(state);
    }
    return [...groups.values()];
  }

  #splitOff(own: number, states: readonly number[]): readonly number[] {
    const id = this.#members.push(new Set(states)) - 1;
    for (const state of states) {
      this.#members[own].delete(state);
      this.classes[state] = id;
    }
    return states;
  }

  #doubt(state: number): void {
    const own = this.classes[state];
    const doubtful = this.#doubtful.get(own) ?? new Set();
    this.#doubtful.set(own, doubtful.add(state));
  }

  #signature(state: number): string {
    const merged: Edge[] = [];
    for (const { lo, hi, to } of this.#dfa.edges[state]) addEdge(merged, lo, hi, this.classes[to]);
    let key = "";
    for (const { lo, hi, to } of merged) key += `${lo}-${hi}>${to},`;
    const calls = this.#dfa.calls[state];
    if (calls.length > 0) key += calls.map((c) => `${c.rule}:${this.classes[c.to]}`).sort().join();
    return key;
  }
}

/** Numbers classes by their first states, so that 0 stays the start. */
function inOrder(classes: readonly number[]): number[] {
  const ids = new Map<number, number>();
  return classes.map((own) => {
    if (!ids.has(own)) ids.set(own, ids.size);
    return ids.get(own)!;
  });
}

/** `classes` number their states in the order of their first ones, so that 0 stays the start. */
function quotient(dfa: Dfa, classes: readonly number[]): Dfa {
  const joined: Dfa = { edges: [], calls: [], accepting: [] };
  for (const [state, id] of classes.entries()) {
    if (id !== joined.edges.length) continue;
    const edges: Edge[] = [];
    for (const { lo, hi, to } of dfa.edges[state]) addEdge(edges, lo, hi, classes[to]);
    joined.edges.push(edges);
    joined.calls.push(dfa.calls[state].map(({ rule, to }) => ({ rule, to: classes[to] })));
    joined.accepting.push(dfa.accepting[state]);
  }
  return joined;
}

/** Texts of both. Neither has calls. */
export async function intersect(a: Dfa, b: Dfa, work: Workload): Promise<Dfa> {
  const ids = new Map<number, number>();
  const pairs: [number, number][] = [];
  const idOf = (left: number, right: number) => {
    const key = left * b.edges.length + right;
    if (!ids.has(key)) ids.set(key, pairs.push([left, right]) - 1);
    return ids.get(key)!;
  };
  const both: Dfa = { edges: [], calls: [], accepting: [] };
  idOf(0, 0);
  for (let id = 0; id < pairs.length; id++) {
    const [left, right] = pairs[id];
    await work.pause();
    work.spend(10 + 2 * (a.edges[left].length + b.edges[right].length));
    both.edges.push(commonEdges(a.edges[left], b.edges[right], idOf));
    both.calls.push([]);
    both.accepting.push(a.accepting[left] && b.accepting[right]);
  }
  return trimmed(both);
}

function commonEdges(
  a: readonly Edge[],
  b: readonly Edge[],
  idOf: (left: number, right: number) => number,
): Edge[] {
  const common: Edge[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    const lo = Math.max(a[i].lo, b[j].lo);
    const hi = Math.min(a[i].hi, b[j].hi);
    if (lo <= hi) common.push({ lo, hi, to: idOf(a[i].to, b[j].to) });
    if (a[i].hi < b[j].hi) i++;
    else j++;
  }
  return common;
}

/** Texts of characters that `dfa` does not accept. It is over code points, without calls. */
export function complementOf(dfa: Dfa): Dfa {
  const sink = dfa.edges.length;
  const all: Edge[] = ANY.map((range) => ({ ...range, to: sink }));
  const edges = dfa.edges.map((own) => withOthers(own, sink));
  return trimmed({
    edges: [...edges, all],
    calls: [...dfa.calls, []],
    accepting: [...dfa.accepting.map((accepts) => !accepts), true],
  });
}

function withOthers(edges: readonly Edge[], sink: number): Edge[] {
  const full: Edge[] = [];
  for (const { lo, hi } of ANY) {
    let next = lo;
    for (const edge of edges) {
      if (edge.hi < lo || edge.lo > hi) continue;
      if (next < edge.lo) full.push({ lo: next, hi: edge.lo - 1, to: sink });
      full.push({ lo: Math.max(lo, edge.lo), hi: Math.min(hi, edge.hi), to: edge.to });
      next = edge.hi + 1;
    }
    if (next <= hi) full.push({ lo: next, hi, to: sink });
  }
  return full;
}

/** Without edges to where no accepting state can be reached. It has no calls. */
export function trimmed(dfa: Dfa): Dfa {
  const sources: number[][] = dfa.edges.map(() => []);
  for (const [state, edges] of dfa.edges.entries()) {
    for (const { to } of edges) sources[to].push(state);
  }
  const pending = [...dfa.accepting.keys()].filter((state) => dfa.accepting[state]);
  const isUseful = new Set(pending);
  for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
    for (const source of sources[state]) {
      if (isUseful.has(source)) continue;
      isUseful.add(source);
      pending.push(source);
    }
  }
  return { ...dfa, edges: dfa.edges.map((edges) => edges.filter(({ to }) => isUseful.has(to))) };
}

/** No text is accepted. */
export function isEmpty(dfa: Dfa): boolean {
  return !dfa.accepting[0] && trimmed(dfa).edges[0].length === 0;
}

/** Whether `text` is accepted by an automaton over code points. */
export function accepts(dfa: Dfa, text: string): boolean {
  let state = 0;
  for (const character of text) {
    const point = character.codePointAt(0)!;
    const edge = dfa.edges[state].find(({ lo, hi }) => lo <= point && point <= hi);
    if (edge === undefined) return false;
    state = edge.to;
  }
  return dfa.accepting[state];
}
