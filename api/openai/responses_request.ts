/** From the body of /v1/responses to what the core runs. */
import { chatPrompt, type Turn } from "../completion/chat_prompt.ts";
import { compileConstraint, type Constraint, onlyConstraint } from "../completion/constraint.ts";
import { maxTokensOf, samplerOf } from "../completion/options_schema.ts";
import { planTools, type ToolChoice } from "../completion/tool_choice.ts";
import type { CompletionRequest } from "../completion/types.ts";
import type { Model } from "../../runtime/types.ts";
import { LOGPROBS, type ResponsesBody } from "./responses_schema.ts";

export async function responsesRequestOf(
  body: ResponsesBody,
  model: Model,
  id: string,
): Promise<CompletionRequest> {
  const plan = planTools(toolsOf(body), toolChoiceOf(body), body.parallel_tool_calls ?? true);
  const constraint = onlyConstraint([plan.constraint, formatOf(body)]);
  const prompt = await chatPrompt(model, turnsOf(body), { tools: plan.tools });
  return {
    id,
    promptField: "input",
    prompts: [prompt],
    choicesPerPrompt: 1,
    options: {
      ...samplerOf(body, model),
      ...maxTokensOf(body.max_output_tokens),
      ...(body.include?.includes(LOGPROBS) ? { logprobs: body.top_logprobs ?? 0 } : {}),
    },
    grammar: await compileConstraint(model, constraint),
    parsesToolCalls: plan.constraint !== null,
  };
}

function toolsOf({ tools }: ResponsesBody) {
  return (tools ?? []).map(({ name, description, parameters }) => ({
    name,
    ...(description ? { description } : {}),
    ...(parameters ? { parameters } : {}),
  }));
}

function toolChoiceOf({ tool_choice: choice }: ResponsesBody): ToolChoice {
  return choice && typeof choice === "object" ? { name: choice.name } : choice ?? "auto";
}

function formatOf({ text }: ResponsesBody): Constraint | null {
  const format = text?.format;
  if (!format || format.type === "text") return null;
  const source = format.type === "json_object"
    ? { kind: "json" as const }
    : { kind: "jsonSchema" as const, schema: format.schema };
  return { param: "text.format", source };
}

function turnsOf({ input, instructions }: ResponsesBody): Turn[] {
  const first: Turn[] = instructions ? [{ role: "system", content: instructions }] : [];
  if (typeof input === "string") return [...first, { role: "user", content: input }];
  return withJoinedCalls([...first, ...input.map(turnOf)]);
}

type Item = Exclude<ResponsesBody["input"], string>[number];

function turnOf(item: Item): Turn {
  if (item.type === "function_call") {
    const { call_id: id, name, arguments: text } = item;
    return { role: "assistant", content: "", calls: [{ id, name, arguments: text }] };
  }
  if (item.type === "function_call_output") {
    return { role: "tool", content: textOf(item.output), callId: item.call_id };
  }
  const role = item.role === "developer" ? "system" : item.role;
  return { role, content: textOf(item.content) };
}

/** What the assistant says and calls are items of their own here, and one turn to templates. */
function withJoinedCalls(turns: readonly Turn[]): Turn[] {
  const joined: Turn[] = [];
  for (const turn of turns) {
    const last = joined.at(-1);
    const isCall = turn.calls !== undefined;
    if (isCall && last?.role === "assistant") last.calls = [...last.calls ?? [], ...turn.calls!];
    else joined.push({ ...turn });
  }
  return joined;
}

function textOf(text: string | { text: string }[]): string {
  return typeof text === "string" ? text : text.map((part) => part.text).join("");
}
