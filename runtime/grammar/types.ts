/**
 * Constrained decoding: which tokens may come next so that the text stays one of a language. See
 * `compile.ts` for how.
 */

/** A function that a model may call, with a JSON schema of its arguments' object. */
export interface ToolSchema {
  /** What the model calls it by. */
  name: string;
  /** A JSON schema; absent: an object with anything in it. */
  parameters?: unknown;
}

/** What texts a generation may have. */
export type GrammarSource =
  /** Any JSON object, or JSON that the schema accepts. */
  | JsonSource
  /** Texts that the whole of a regular expression matches. */
  | { kind: "regex"; pattern: string }
  /** One of these texts. */
  | { kind: "choice"; choices: readonly string[] }
  /** llama.cpp's notation; the rule `root` is the text. */
  | { kind: "gbnf"; grammar: string }
  /**
   * Calls of functions, each `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`. With
   * `auto` a text without calls may come first or alone.
   */
  | {
    kind: "tools";
    tools: readonly ToolSchema[];
    choice: "auto" | "required";
    /** More than one call may come. */
    parallel: boolean;
    /** With `auto`: what a text without calls must be, and then none comes before calls. Default: any. */
    text?: JsonSource;
  };

/** Of a `GrammarSource`, those for JSON. */
export type JsonSource = { kind: "json" } | { kind: "jsonSchema"; schema: unknown };

/** A compiled grammar for one vocabulary: shared by any number of generations at once. */
export interface Grammar {
  /** What it was compiled from. */
  readonly source: GrammarSource;
  /** States of its automaton: some hundred bytes each. */
  readonly numStates: number;
  /** At the beginning of a text. */
  start(): GrammarMatcher;
}

/** Where one text is in its grammar. */
export interface GrammarMatcher {
  /**
   * (ceil(vocabSize / 32),) Bit `id % 32` of word `id / 32` is set if the token may come next. Tokens that
   * end a text are set when it is complete. Valid until the next `accept`; the caller must not change it.
   */
  allowed(): Uint32Array;
  /**
   * Goes on by a token.
   * @throws {RangeError} If it is not allowed.
   * @throws {GrammarError} If the text can be read in too many ways: the grammar is too ambiguous.
   */
  accept(id: number): void;
  /** What was said so far is a whole text of the grammar. */
  readonly isComplete: boolean;
  /** It is complete, and nothing can come after it but an end. */
  readonly isFinished: boolean;
}

/** Malformed, or something that is not supported: `message` says which part. */
export class GrammarError extends SyntaxError {
  /** The class's own. */
  override name = "GrammarError";
}
