/** From the body of /v1/messages to what the core runs. */
import { chatPrompt, type Tool, type Turn } from "../completion/chat_prompt.ts";
import { compileConstraint, type Constraint, onlyConstraint } from "../completion/constraint.ts";
import { samplerOf } from "../completion/options_schema.ts";
import { planTools, type ToolChoice, type ToolPlan } from "../completion/tool_choice.ts";
import type { CompletionRequest } from "../completion/types.ts";
import type { Model } from "../../runtime/types.ts";
import type { CountBody, MessagesBody } from "./schema.ts";

export async function messagesRequestOf(
  body: MessagesBody,
  model: Model,
  id: string,
): Promise<CompletionRequest> {
  const plan = toolPlanOf(body);
  const constraint = onlyConstraint([plan.constraint, formatOf(body)]);
  return {
    id,
    promptField: "messages",
    prompts: [await promptOf(body, model, plan)],
    choicesPerPrompt: 1,
    options: {
      ...samplerOf(body, model),
      maxTokens: body.max_tokens,
      stop: body.stop_sequences ?? [],
    },
    grammar: await compileConstraint(model, constraint),
    parsesToolCalls: plan.constraint !== null,
  };
}

/** Tokens of the prompt. */
export async function countedTokens(body: CountBody, model: Model): Promise<number> {
  return (await promptOf(body, model, toolPlanOf(body))).length;
}

function promptOf(body: CountBody, model: Model, { tools }: ToolPlan): Promise<number[]> {
  const system = textOf(body.system);
  const turns = body.messages.flatMap(turnsOf);
  const first: Turn[] = system === "" ? [] : [{ role: "system", content: system }];
  return chatPrompt(model, [...first, ...turns], { tools });
}

function toolPlanOf({ tools, tool_choice: choice }: CountBody): ToolPlan {
  const isParallel = choice?.type === "none" || !choice?.disable_parallel_tool_use;
  return planTools((tools ?? []).map(toolOf), choiceOf(choice), isParallel);
}

function toolOf(tool: NonNullable<CountBody["tools"]>[number]): Tool {
  return {
    name: tool.name,
    ...(tool.description ? { description: tool.description } : {}),
    parameters: tool.input_schema,
  };
}

function choiceOf(choice: CountBody["tool_choice"]): ToolChoice {
  if (choice?.type === "tool") return { name: choice.name };
  if (choice?.type === "any") return "required";
  return choice?.type ?? "auto";
}

function formatOf({ output_config: config }: MessagesBody): Constraint | null {
  if (!config?.format) return null;
  const source = { kind: "jsonSchema" as const, schema: config.format.schema };
  return { param: "output_config.format", source };
}

type Message = CountBody["messages"][number];
type Block = Exclude<Message["content"], string>[number];

/** A user's message may hold results of tools, which are turns of their own. */
function turnsOf({ role, content }: Message): Turn[] {
  if (typeof content === "string") return [{ role, content }];
  const results = content.filter((block) => block.type === "tool_result").map(resultOf);
  const calls = content.filter((block) => block.type === "tool_use").map(callOf);
  const text = content.map(said).join("");
  const isResultOnly = results.length > 0 && text === "";
  return [...results, ...(isResultOnly ? [] : [{ role, content: text, calls }])];
}

function said(block: Block): string {
  return block.type === "text" ? block.text : "";
}

function resultOf({ tool_use_id, content }: Block & { type: "tool_result" }): Turn {
  return { role: "tool", content: textOf(content), callId: tool_use_id };
}

function callOf({ id, name, input }: Block & { type: "tool_use" }) {
  return { id, name, arguments: JSON.stringify(input) };
}

function textOf(text: MessagesBody["system"]): string {
  if (typeof text === "string") return text;
  return (text ?? []).map((block) => block.text).join("");
}
