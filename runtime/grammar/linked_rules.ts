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
      await this.#append(rule, dfa, shareKeys);
    }
    await this.#dropDeadEnds();
    const skips = await this.#skips(await this.#nullableRules());
    const states = { length: this.#edges.length };
    const isTail = (state: number) =>
      this.#accepting[state] && this.#edges[state].length + this.#calls[state].length === 0;
    return {
      numStates: this.#edges.length,
      starts: this.#starts,
      edges: this.#edges,
      calls: this.#calls,
      canEnd: Uint8Array.from(skips, (own) => Number(own.some(this.#isAccepting))),
      isTail: Uint8Array.from(states, (_, state) => Number(isTail(state))),
      skips,
      rank: this.#ranks(skips),
      ruleOf: Int32Array.from(this.#ruleOf),
      shareKeys: this.#shareKeys,
    };
  }

  async #skips(nullable: ReadonlySet<number>): Promise<number[][]> {
    const skips: number[][] = [];
    for (let state = 0; state < this.#edges.length; state++) {
      if (state % 256 === 0) await this.#work.pause();
      skips.push(this.#skipsOf(state, nullable));
    }
    return skips;
  }

  #isAccepting = (state: number) => this.#accepting[state];

  async #append(rule: number, dfa: Dfa, shareKeys: readonly string[]): Promise<void> {
    const base = this.#edges.length;
    this.#starts.push(base);
    const shape = shareKeys.length > 0 ? null : shapeOf(dfa);
    for (const [i, edges] of dfa.edges.entries()) {
      if (i % 256 === 0) await this.#work.pause();
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
      if (state % 256 === 0) await this.#work.pause();
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
    const sources = await this.#sources();
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
      await this.#work.pause();
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
  async #sources() {
    const byEdge: number[][] = this.#edges.map(() => []);
    const byCall: { from: number; rule: number }[][] = this.#edges.map(() => []);
    for (const [from, edges] of this.#edges.entries()) {
      if (from % 256 === 0) await this.#work.pause();
      for (let i = 2; i < edges.length; i += 3) byEdge[edges[i]].push(from);
      for (const { rule, to } of this.#calls[from]) byCall[to].push({ from, rule });
    }
    return { edges: byEdge, calls: byCall };
  }

  /** Rules that can say nothing. */
  async #nullableRules(): Promise<Set<number>> {
    const callers: Set<number>[] = this.#rules.map(() => new Set());
    for (const [state, calls] of this.#calls.entries()) {
      for (const { rule } of calls) callers[rule].add(this.#ruleOf[state]);
    }
    const nullable = new Set<number>();
    // What calls a rule that can say nothing is looked at again.
    const pending = new Set(this.#starts.keys());
    for (const rule of pending) {
      await this.#work.pause();
      pending.delete(rule);
      const skips = this.#skipsOf(this.#starts[rule], nullable);
      this.#work.spend(skips.length);
      if (nullable.has(rule) || !skips.some(this.#isAccepting)) continue;
      nullable.add(rule);
      for (const caller of callers[rule]) pending.add(caller);
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
