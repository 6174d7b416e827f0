import { ApiError } from "../errors.ts";
import type { Tool } from "./chat_prompt.ts";
import type { Constraint } from "./constraint.ts";

/** Which calls the client wants: none, as the model likes, at least one, or one of a function. */
export type ToolChoice = "none" | "auto" | "required" | { name: string };

/** The functions that the model is told of, and what it may write. */
export interface ToolPlan {
  tools: readonly Tool[];
  constraint: Constraint | null;
}

/** @throws {ApiError} 400 if the choice names a function that is not there, or there is none. */
export function planTools(
  tools: readonly Tool[],
  choice: ToolChoice,
  parallel: boolean,
): ToolPlan {
  if (choice === "none" || (tools.length === 0 && choice === "auto")) {
    return { tools: [], constraint: null };
  }
  const allowed = typeof choice === "string"
    ? tools
    : tools.filter(({ name }) => name === choice.name);
  if (allowed.length === 0) throw noSuchTool(choice);
  const kind = choice === "auto" ? "auto" : "required";
  return {
    tools,
    constraint: {
      param: "tools",
      source: {
        kind: "tools",
        tools: allowed.map(schemaOf),
        choice: kind,
        // Who names a function wants one call of it.
        parallel: parallel && typeof choice === "string",
      },
    },
  };
}

function schemaOf({ name, parameters }: Tool) {
  return { name, ...(parameters === undefined ? {} : { parameters }) };
}

function noSuchTool(choice: ToolChoice): ApiError {
  const wanted = typeof choice === "string" ? "a function" : JSON.stringify(choice.name);
  return new ApiError(
    400,
    "invalid_request_error",
    `Cannot call ${wanted} as tools has none of that name: add it to tools`,
    { param: "tool_choice" },
  );
}
