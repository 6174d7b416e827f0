/**
 * All rules of a grammar as one table of states, without those that lead nowhere: from every state
 * that is left some text can be completed, byte by byte.
 */
import { createHash } from "node:crypto";
import type { Dfa } from "./automaton.ts";
import type { Rule } from "./rule_book.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

/** Calls of a state: pairs of the rule and the state that comes after it. */
export type Calls = readonly { rule: number; to: number }[];

/** States are numbered through all rules. */
export interface LinkedRules {
  readonly numStates: number;
  /** By rule: where it starts. */
  readonly starts: readonly number[];
  /** By state: (firstByte, lastByte, target) three by three. */
  readonly edges: readonly Int32Array[];
  readonly calls: readonly Calls[];
  /** By state: the rule can end here, perhaps after calls that say nothing. */
  readonly canEnd: Uint8Array;
  /** By state: nothing but the end can come. */
  readonly isTail: Uint8Array;
  /** By state: itself and what calls that say nothing lead to. */
  readonly skips: readonly (readonly number[])[];
  /** By rule: every rule comes after those that can call it before they have said anything. */
  readonly rank: Int32Array;
  readonly ruleOf: Int32Array;
  /** By state: see `Rule.shareKeys`. */
  readonly shareKeys: readonly string[];
}

/**
 * @param isSpellable By byte: a token of its own says it. Other bytes are left out of all texts, as
 * a text could get stuck before them.
 * @throws {GrammarError} If no text is left, or rules call themselves before they have said anything.
 */
export async function link(
  rules: readonly Rule[],
  isSpellable: (byte: number) => boolean,
  work: Workload,
): Promise<LinkedRules> {
  const all = new Linker(rules, isSpellable, work);
  return await all.run();
}

class Linker {
  readonly #rules: readonly Rule[];
  readonly #isSpellable: (byte: number) => boolean;
  readonly #work: Workload;
  readonly #starts: number[] = [];
  readonly #edges: Int32Array[] = [];
  #calls: Calls[] = [];
  readonly #accepting: boolean[] = [];
  readonly #ruleOf: number[] = [];
  readonly #shareKeys: string[] = [];

  constructor(rules: readonly Rule[], isSpellable: (byte: number) => boolean, work: Workload) {
    this.#rules = rules;
    this.#isSpellable = isSpellable;
    this.#work = work;
  }

  async run(): Promise<LinkedRules> {
    for (const [rule, { dfa, shareKeys }] of this.#rules.entries()) {
      if (this.#work.isDue) await this.#work.rest();
      this.#append(rule, dfa, shareKeys);
    }
    await this.#dropDeadEnds();
    const numStates = this.#edges.length;
    const nullable = this.#nullableRules();
    const skips = this.#calls.map((_, state) => this.#skipsOf(state, nullable));
    const canEnd = Uint8Array.from(skips, (states) => Number(states.some(this.#isAccepting)));
    const isTail = Uint8Array.from(
      { length: numStates },
      (_, s) => Number(this.#accepting[s] && this.#edges[s].length + this.#calls[s].length === 0),
    );
    return {
      numStates,
      starts: this.#starts,
      edges: this.#edges,
      calls: this.#calls,
      canEnd,
      isTail,
      skips,
      rank: this.#ranks(skips),
      ruleOf: Int32Array.from(this.#ruleOf),
      shareKeys: this.#shareKeys,
    };
  }

  #isAccepting = (state: number) => this.#accepting[state];

  #append(rule: number, dfa: Dfa, shareKeys: readonly string[]): void {
    const base = this.#edges.length;
    this.#starts.push(base);
    const shape = shareKeys.length > 0 ? null : shapeOf(dfa);
    for (const [i, edges] of dfa.edges.entries()) {
      const flat: number[] = [];
      for (const { lo, hi, to } of edges) this.#addSpellable(flat, lo, hi, base + to);
      this.#edges.push(Int32Array.from(flat));
      this.#calls.push(dfa.calls[i].map((call) => ({ rule: call.rule, to: base + call.to })));
      this.#accepting.push(dfa.accepting[i]);
      this.#ruleOf.push(rule);
      this.#shareKeys.push(shape === null ? shareKeys[i] ?? "" : `${shape}:${i}`);
    }
  }

  #addSpellable(flat: number[], lo: number, hi: number, to: number): void {
    let first = lo;
    for (let byte = lo; byte <= hi + 1; byte++) {
      if (byte <= hi && this.#isSpellable(byte)) continue;
      if (first < byte) flat.push(first, byte - 1, to);
      first = byte + 1;
    }
  }

  /** What states lead to others: by edges, and by calls of rules that have texts. */
  async #dropDeadEnds(): Promise<void> {
    const isAlive = await this.#aliveStates();
    if (isAlive[0] === 0) {
      throw new GrammarError(
        "Cannot compile this grammar as it has no text at all that this model's tokens can spell",
      );
    }
    const lives = (state: number) => isAlive[state] === 1;
    for (const [state, edges] of this.#edges.entries()) {
      const flat: number[] = [];
      for (let i = 0; i < edges.length; i += 3) {
        if (lives(edges[i + 2])) flat.push(edges[i], edges[i + 1], edges[i + 2]);
      }
      if (flat.length < edges.length) this.#edges[state] = Int32Array.from(flat);
    }
    this.#calls = this.#calls.map((calls) =>
      calls.filter(({ rule, to }) => lives(this.#starts[rule]) && lives(to))
    );
  }

  /** By state: whether the end of its rule can be reached. */
  async #aliveStates(): Promise<Uint8Array> {
    const sources = this.#sources();
    const callers: { from: number; to: number }[][] = this.#rules.map(() => []);
    for (const [from, calls] of this.#calls.entries()) {
      for (const { rule, to } of calls) callers[rule].push({ from, to });
    }
    const isAlive = new Uint8Array(this.#edges.length);
    const pending: number[] = [];
    const revive = (state: number) => {
      if (isAlive[state] === 0) pending.push(state);
      isAlive[state] = 1;
    };
    this.#accepting.forEach((accepting, state) => accepting && revive(state));
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      if (this.#work.isDue) await this.#work.rest();
      sources.edges[state].forEach(revive);
      for (const { from, rule } of sources.calls[state]) {
        if (isAlive[this.#starts[rule]] === 1) revive(from);
      }
      if (state !== this.#starts[this.#ruleOf[state]]) continue;
      for (const { from, to } of callers[this.#ruleOf[state]]) if (isAlive[to] === 1) revive(from);
    }
    return isAlive;
  }

  /** By state: what leads to it. */
  #sources() {
    const byEdge: number[][] = this.#edges.map(() => []);
    const byCall: { from: number; rule: number }[][] = this.#edges.map(() => []);
    for (const [from, edges] of this.#edges.entries()) {
      for (let i = 2; i < edges.length; i += 3) byEdge[edges[i]].push(from);
      for (const { rule, to } of this.#calls[from]) byCall[to].push({ from, rule });
    }
    return { edges: byEdge, calls: byCall };
  }

  /** Rules that can say nothing. */
  #nullableRules(): Set<number> {
    const nullable = new Set<number>();
    for (let before = -1; before < nullable.size;) {
      before = nullable.size;
      for (const [rule, start] of this.#starts.entries()) {
        if (nullable.has(rule)) continue;
        if (this.#skipsOf(start, nullable).some(this.#isAccepting)) nullable.add(rule);
      }
    }
    return nullable;
  }

  #skipsOf(state: number, nullable: ReadonlySet<number>): number[] {
    const states = [state];
    if (this.#calls[state].length === 0) return states;
    const seen = new Set(states);
    // The list grows while it is run through.
    for (const from of states) {
      for (const { rule, to } of this.#calls[from]) {
        if (!nullable.has(rule) || seen.has(to)) continue;
        seen.add(to);
        states.push(to);
      }
    }
    return states;
  }

  #ranks(skips: readonly (readonly number[])[]): Int32Array {
    const left = this.#starts.map((start) => {
      const rules = skips[start].flatMap((state) => this.#calls[state].map(({ rule }) => rule));
      return [...new Set(rules)];
    });
    const callers = new Int32Array(left.length);
    for (const rules of left) for (const rule of rules) callers[rule]++;
    const order = [...left.keys()].filter((rule) => callers[rule] === 0);
    for (const rule of order) {
      for (const called of left[rule]) if (--callers[called] === 0) order.push(called);
    }
    if (order.length < left.length) throw leftRecursion();
    const rank = new Int32Array(left.length);
    for (const [i, rule] of order.entries()) rank[rule] = i;
    return rank;
  }
}

/** Larger rules are seldom the same in two grammars. */
const MAX_SHARED_STATES = 2000;

/** Equal for equal rules without calls, or null: what follows from their states is the same. */
function shapeOf({ edges, calls, accepting }: Dfa): string | null {
  if (edges.length > MAX_SHARED_STATES || calls.some(({ length }) => length > 0)) return null;
  const flat = edges.map((own) => own.map(({ lo, hi, to }) => [lo, hi, to]));
  return createHash("sha256").update(JSON.stringify([flat, accepting])).digest("base64");
}

function leftRecursion(): GrammarError {
  return new GrammarError(
    "Cannot compile this grammar as a rule of it calls itself before it has said anything (left " +
      'recursion): write a repetition instead, `list ::= item ("," item)*`',
  );
}
