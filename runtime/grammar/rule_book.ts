/** Rules while a grammar is being written down. */
import { compileExpression, type Dfa } from "./automaton.ts";
import { type Encoder, utf8 } from "./encoding.ts";
import type { Expression, RuleId } from "./expression.ts";
import { GrammarError } from "./types.ts";
import type { Workload } from "./workload.ts";

/** All automata of a grammar together: some 100 MB at most. */
const MAX_TOTAL_STATES = 250_000;

/** A rule over bytes. */
export interface Rule {
  dfa: Dfa;
  /**
   * Of every state: what is equal for states from which the same texts follow up to the length of the
   * longest token. Empty: nothing is known.
   */
  shareKeys: string[];
}

/** Rules by number; rule 0 is the text. */
export class RuleBook {
  readonly rules: (Rule | null)[] = [];
  #totalStates = 0;

  constructor(readonly work: Workload) {}

  /** A rule that is defined later: rules may call each other. */
  declare(): RuleId {
    return this.rules.push(null) - 1;
  }

  async define(id: RuleId, expression: Expression, encoder: Encoder = utf8): Promise<void> {
    this.set(id, { dfa: await compileExpression(expression, encoder, this.work), shareKeys: [] });
  }

  set(id: RuleId, rule: Rule): void {
    this.#totalStates += rule.dfa.edges.length;
    if (this.#totalStates > MAX_TOTAL_STATES) {
      throw new GrammarError(
        `Cannot compile this grammar as it needs more than ${MAX_TOTAL_STATES} states: ` +
          "use a smaller one",
      );
    }
    this.rules[id] = rule;
  }

  /** All rules, once each has been defined. */
  finished(): Rule[] {
    return this.rules.map((rule, id) => {
      if (rule === null) throw new Error(`Rule ${id} has been declared, but not defined`);
      return rule;
    });
  }

  async add(expression: Expression, encoder: Encoder = utf8): Promise<RuleId> {
    const id = this.declare();
    await this.define(id, expression, encoder);
    return id;
  }
}
