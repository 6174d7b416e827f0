/** What texts the client allows, as a compiled grammar. */
import {
  type Grammar,
  GrammarError,
  type GrammarSource,
  type JsonSource,
} from "../../runtime/grammar/types.ts";
import type { Model } from "../../runtime/types.ts";
import { ApiError } from "../errors.ts";

type ToolsSource = Extract<GrammarSource, { kind: "tools" }>;

export interface Constraint {
  source: GrammarSource;
  /** The field that asks for it. */
  param: string;
}

/**
 * The only one of several ways to say it. A format beside tools is that of answers without calls.
 *
 * @throws {ApiError} 400 if there are two.
 */
export function onlyConstraint(constraints: readonly (Constraint | null)[]): Constraint | null {
  const given = constraints.filter((constraint) => constraint !== null);
  if (given.length <= 1) return given[0] ?? null;
  const [first, second] = given;
  if (first.source.kind === "tools" && isJson(second.source)) {
    return { param: second.param, source: withText(first.source, second.source) };
  }
  throw new ApiError(
    400,
    "invalid_request_error",
    `Cannot constrain the answer by ${first.param} and ${second.param} at once: give one of them`,
    { param: second.param },
  );
}

function isJson(source: GrammarSource): source is JsonSource {
  return source.kind === "json" || source.kind === "jsonSchema";
}

/** Where a call must come there is no answer without one. */
function withText(source: ToolsSource, text: JsonSource): GrammarSource {
  return source.choice === "auto" ? { ...source, text } : source;
}

/** @throws {ApiError} 400 if it is malformed, or not supported. */
export async function compileConstraint(
  model: Model,
  constraint: Constraint | null,
): Promise<Grammar | null> {
  if (constraint === null) return null;
  try {
    return await model.grammar(constraint.source);
  } catch (error) {
    if (!(error instanceof GrammarError)) throw error;
    const { param } = constraint;
    throw new ApiError(400, "invalid_request_error", error.message, { param, cause: error });
  }
}
