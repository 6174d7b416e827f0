/**
 * What texts a grammar has, slowly and obviously: expressions are followed from every place where
 * the ones before them can end. Tests compare masks with it.
 */
import type { Expression, RuleId } from "./expression.ts";

/** How an expression can be matched from some place on. */
interface Match {
  /** Where it can end. */
  ends: ReadonlySet<number>;
  /** The text can end in the middle of it. */
  isCut: boolean;
}

/** Rules by number; rule 0 is the text. Characters are ASCII. */
export type ReferenceGrammar = readonly Expression[];

/** Whether `text` is a whole text of the grammar, and whether it is the beginning of one. */
export function follow(grammar: ReferenceGrammar, text: string) {
  const { ends, isCut } = new Reference(grammar, text).match({ kind: "call", rule: 0 }, 0);
  const isWhole = ends.has(text.length);
  return { isWhole, isBeginning: isWhole || isCut };
}

/** Rules that have texts, as a text can not stop in the middle of others. */
export function rulesWithTexts(grammar: ReferenceGrammar): Set<RuleId> {
  const rules = new Set<RuleId>();
  const hasText = (part: Expression): boolean => {
    switch (part.kind) {
      case "text":
        return true;
      case "set":
        return part.ranges.length > 0;
      case "sequence":
        return part.parts.every(hasText);
      case "choice":
        return part.parts.some(hasText);
      case "repeat":
        return part.min === 0 || hasText(part.part);
      case "call":
        return rules.has(part.rule);
      default:
        throw new TypeError(`Cannot follow ${part.kind}`);
    }
  };
  for (let before = -1; before < rules.size;) {
    before = rules.size;
    for (const [rule, expression] of grammar.entries()) if (hasText(expression)) rules.add(rule);
  }
  return rules;
}

class Reference {
  readonly #grammar: ReferenceGrammar;
  readonly #text: string;
  readonly #calls = new Map<string, Match>();

  constructor(grammar: ReferenceGrammar, text: string) {
    this.#grammar = grammar;
    this.#text = text;
  }

  match(part: Expression, at: number): Match {
    switch (part.kind) {
      case "text":
        return this.#literal(part.text, at);
      case "set": {
        if (at === this.#text.length) return { ends: new Set(), isCut: true };
        const point = this.#text.charCodeAt(at);
        const fits = part.ranges.some(({ lo, hi }) => lo <= point && point <= hi);
        return { ends: new Set(fits ? [at + 1] : []), isCut: false };
      }
      case "sequence":
        return this.#sequence(part.parts, at);
      case "choice":
        return joined(part.parts.map((one) => this.match(one, at)));
      case "repeat":
        return this.#repeat(part, at);
      case "call":
        return this.#call(part.rule, at);
      default:
        throw new TypeError(`Cannot follow ${part.kind}`);
    }
  }

  #literal(literal: string, at: number): Match {
    const rest = this.#text.slice(at);
    const ends = new Set(rest.startsWith(literal) ? [at + literal.length] : []);
    return { ends, isCut: rest.length < literal.length && literal.startsWith(rest) };
  }

  #sequence(parts: readonly Expression[], at: number): Match {
    let match: Match = { ends: new Set([at]), isCut: false };
    for (const part of parts) {
      const { ends, isCut } = joined([...match.ends].map((end) => this.match(part, end)));
      match = { ends, isCut: isCut || match.isCut };
    }
    return match;
  }

  /** More rounds than the text has characters say nothing new. */
  #repeat({ part, min, max }: Extract<Expression, { kind: "repeat" }>, at: number): Match {
    const most = Math.min(max ?? Infinity, min + this.#text.length + 1);
    const matches: Match[] = [];
    for (let count = min; count <= most; count++) {
      matches.push(this.#sequence(Array.from({ length: count }, () => part), at));
    }
    return joined(matches);
  }

  #call(rule: RuleId, at: number): Match {
    const key = `${rule}:${at}`;
    const known = this.#calls.get(key);
    const match = known ?? this.match(this.#grammar[rule], at);
    this.#calls.set(key, match);
    return match;
  }
}

function joined(matches: readonly Match[]): Match {
  return {
    ends: new Set(matches.flatMap(({ ends }) => [...ends])),
    isCut: matches.some(({ isCut }) => isCut),
  };
}
