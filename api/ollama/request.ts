/** From Ollama's bodies to what the core runs. */
import { chatPrompt, type Tool, type Turn } from "../completion/chat_prompt.ts";
import { compileConstraint, type Constraint, onlyConstraint } from "../completion/constraint.ts";
import { randomId } from "../completion/ids.ts";
import { maxTokensOf, samplerOf, stopsOf } from "../completion/options_schema.ts";
import { planTools, type ToolPlan } from "../completion/tool_choice.ts";
import type { CompletionRequest } from "../completion/types.ts";
import type { Model } from "../../runtime/types.ts";
import type { ChatBody, GenerateBody } from "./schema.ts";

type Shared = Pick<GenerateBody, "format" | "options" | "logprobs" | "top_logprobs">;

export async function generateRequestOf(
  body: GenerateBody,
  prompt: string,
  model: Model,
): Promise<CompletionRequest> {
  return requestOf(body, await generatePrompt(body, prompt, model), model, NO_TOOLS);
}

export async function chatRequestOf(body: ChatBody, model: Model): Promise<CompletionRequest> {
  const plan = planTools((body.tools ?? []).map(toolOf), "auto", true);
  const turns = (body.messages ?? []).map(turnOf);
  const prompt = await chatPrompt(model, turns, { tools: plan.tools });
  return requestOf(body, prompt, model, plan);
}

const NO_TOOLS: ToolPlan = { tools: [], constraint: null };

async function requestOf(
  body: Shared,
  prompt: readonly number[],
  model: Model,
  plan: ToolPlan,
): Promise<CompletionRequest> {
  const { options } = body;
  const constraint = onlyConstraint([plan.constraint, formatOf(body)]);
  return {
    id: randomId("ollama-"),
    promptField: "prompt",
    prompts: [prompt],
    choicesPerPrompt: 1,
    options: {
      ...samplerOf(options ?? {}, model),
      ...maxTokensOf(options?.num_predict),
      stop: stopsOf(options?.stop),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
    },
    grammar: await compileConstraint(model, constraint),
    parsesToolCalls: plan.constraint !== null,
  };
}

function formatOf({ format }: Shared): Constraint | null {
  if (!format) return null;
  const param = "format";
  if (format === "json") return { param, source: { kind: "json" } };
  return { param, source: { kind: "jsonSchema", schema: format } };
}

/** As a chat of one turn, unless it is to be taken as it is, or the model can't chat. */
async function generatePrompt(
  { raw, system, context }: GenerateBody,
  prompt: string,
  model: Model,
): Promise<readonly number[]> {
  if (context && context.length > 0) {
    return [...context, ...await model.encode(prompt, { addSpecialTokens: false })];
  }
  if (raw || model.chatTemplate === null) return model.encode(prompt);
  const turns: Turn[] = [{ role: "user", content: prompt }];
  if (system) turns.unshift({ role: "system", content: system });
  return chatPrompt(model, turns, { tools: [] });
}

function toolOf(
  { function: { name, description, parameters } }: NonNullable<ChatBody["tools"]>[0],
) {
  return {
    name,
    ...(description ? { description } : {}),
    ...(parameters ? { parameters } : {}),
  } satisfies Tool;
}

function turnOf({ role, content, tool_calls: calls, tool_name: name }: Message): Turn {
  return {
    role,
    content: content ?? "",
    name: name ?? undefined,
    calls: (calls ?? []).map(({ function: call }) => ({
      id: randomId("call_"),
      name: call.name,
      arguments: JSON.stringify(call.arguments),
    })),
  };
}

type Message = NonNullable<ChatBody["messages"]>[number];
