/** What a rule's right-hand side says, before it becomes an automaton. */
import type { Dfa } from "./automaton.ts";
import { oneOf, type Ranges } from "./ranges.ts";

/** A rule of a `RuleBook`. */
export type RuleId = number;

export type Expression =
  | { kind: "text"; text: string }
  /** One character of a set. */
  | { kind: "set"; ranges: Ranges }
  | { kind: "sequence"; parts: readonly Expression[] }
  | { kind: "choice"; parts: readonly Expression[] }
  /** `max` null: without end. */
  | { kind: "repeat"; part: Expression; min: number; max: number | null }
  | { kind: "call"; rule: RuleId }
  /** Over code points, without calls. */
  | { kind: "automaton"; dfa: Dfa }
  /** Ways from state 0 to state 1. */
  | { kind: "graph"; numStates: number; arcs: readonly Arc[] };

export interface Arc {
  from: number;
  to: number;
  part: Expression;
}

export const EMPTY: Expression = { kind: "sequence", parts: [] };
/** No text at all, not even the empty one. */
export const NOTHING: Expression = { kind: "choice", parts: [] };

export function text(value: string): Expression {
  return { kind: "text", text: value };
}

export function set(ranges: Ranges | string): Expression {
  return { kind: "set", ranges: typeof ranges === "string" ? oneOf(ranges) : ranges };
}

/** Strings stand for themselves. */
export function sequence(...parts: (Expression | string)[]): Expression {
  return { kind: "sequence", parts: parts.map(asExpression) };
}

/** Strings stand for themselves. */
export function choice(...parts: (Expression | string)[]): Expression {
  return { kind: "choice", parts: parts.map(asExpression) };
}

export function repeat(part: Expression | string, min: number, max: number | null): Expression {
  return { kind: "repeat", part: asExpression(part), min, max };
}

export function optional(part: Expression | string): Expression {
  return repeat(part, 0, 1);
}

export function call(rule: RuleId): Expression {
  return { kind: "call", rule };
}

export function automaton(dfa: Dfa): Expression {
  return { kind: "automaton", dfa };
}

function asExpression(part: Expression | string): Expression {
  return typeof part === "string" ? text(part) : part;
}
