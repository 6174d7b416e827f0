/** From the body of a chat to what the core runs. */
import { chatPrompt, type Tool, type Turn } from "../completion/chat_prompt.ts";
import { compileConstraint, onlyConstraint } from "../completion/constraint.ts";
import { engineOptionsOf, maxTokensOf, samplerOf, stopsOf } from "../completion/options_schema.ts";
import { planTools, type ToolChoice } from "../completion/tool_choice.ts";
import type { CompletionRequest } from "../completion/types.ts";
import type { Model } from "../../runtime/types.ts";
import type { ChatBody } from "./chat_schema.ts";
import { constraintOf } from "./constraint_schema.ts";

export async function chatRequestOf(
  body: ChatBody,
  model: Model,
  id: string,
): Promise<CompletionRequest> {
  const plan = planTools(toolsOf(body), toolChoiceOf(body), body.parallel_tool_calls ?? true);
  const constraint = onlyConstraint([plan.constraint, constraintOf(body)]);
  const prompt = await chatPrompt(model, body.messages.map(turnOf), {
    tools: plan.tools,
    templateVariables: body.chat_template_kwargs ?? undefined,
  });
  return {
    id,
    promptField: "messages",
    prompts: [prompt],
    choicesPerPrompt: body.n ?? 1,
    options: {
      ...samplerOf(body, model),
      ...maxTokensOf(body.max_completion_tokens, body.max_tokens),
      stop: stopsOf(body.stop),
      ...engineOptionsOf(body),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
    },
    grammar: await compileConstraint(model, constraint),
    parsesToolCalls: plan.constraint !== null,
  };
}

export function toolsOf({ tools }: Pick<ChatBody, "tools">): Tool[] {
  return (tools ?? []).map(({ function: { name, description, parameters } }) => ({
    name,
    ...(description ? { description } : {}),
    ...(parameters ? { parameters } : {}),
  }));
}

function toolChoiceOf({ tool_choice: choice }: ChatBody): ToolChoice {
  return choice && typeof choice === "object" ? { name: choice.function.name } : choice ?? "auto";
}

type Message = ChatBody["messages"][number];

export function turnOf(message: Message): Turn {
  const content = textOf(message.content);
  const name = message.name ?? undefined;
  switch (message.role) {
    case "developer":
      return { role: "system", content, name };
    case "assistant":
      return { role: "assistant", content, name, calls: callsOf(message) };
    case "tool":
      return { role: "tool", content, name, callId: message.tool_call_id ?? undefined };
    default:
      return { role: message.role, content, name };
  }
}

function callsOf({ tool_calls: calls }: Message & { role: "assistant" }) {
  return (calls ?? []).map(({ id, function: { name, arguments: text } }) => ({
    id,
    name,
    arguments: text,
  }));
}

function textOf(content: Message["content"]): string {
  if (typeof content === "string") return content;
  return (content ?? []).map(({ text }) => text).join("");
}
