/** From a conversation to token ids, whether the model's template knows of tools or not. */
import type { ChatMessage, Model } from "../../runtime/types.ts";
import { ApiError } from "../errors.ts";
import { CALL_END, CALL_START } from "./tool_call_parser.ts";
import type { ToolCall } from "./types.ts";

/** A message as all dialects can be understood. */
export interface Turn {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  /** Calls that the assistant made. */
  calls?: readonly ToolCall[];
  /** Which call a tool's content answers. */
  callId?: string;
  name?: string;
}

export interface Tool {
  name: string;
  description?: string;
  /** A JSON schema. */
  parameters?: unknown;
}

export interface ChatPromptOptions {
  tools: readonly Tool[];
  templateVariables?: Readonly<Record<string, unknown>>;
}

function cannotChat({ name }: Model, why: string): ApiError {
  return new ApiError(400, "invalid_request_error", `Cannot chat with ${name} as it ${why}`, {
    param: "messages",
  });
}

/** The text that the model goes on from. @throws {ApiError} 400 if the model can't chat. */
export function renderChat(
  model: Model,
  turns: readonly Turn[],
  { tools, templateVariables }: ChatPromptOptions,
): string {
  if (model.task === "embed") {
    throw cannotChat(model, "is an embedding model: use /v1/embeddings");
  }
  if (model.chatTemplate === null) {
    throw cannotChat(model, "has no chat template: use /v1/completions");
  }
  if (!knowsTools(model.chatTemplate)) {
    return model.applyChatTemplate(turnsInWords(turns, tools), { templateVariables });
  }
  return model.applyChatTemplate(withNames(turns).map(messageOf), {
    templateVariables,
    ...(tools.length === 0
      ? {}
      : { tools: tools.map((tool) => ({ type: "function", function: tool })) }),
  });
}

export function chatPrompt(
  model: Model,
  turns: readonly Turn[],
  options: ChatPromptOptions,
): Promise<number[]> {
  return model.encodeChat(renderChat(model, turns, options));
}

/**
 * Templates of other families tell their models to call in other ways than the one that the grammar
 * of tools lets through: these are told in words.
 */
function knowsTools(template: string): boolean {
  return /\btools\b/.test(template) && template.includes(CALL_START);
}

/** Some templates want a result's function, which most clients only name where it is called. */
function withNames(turns: readonly Turn[]): Turn[] {
  const names = new Map<string, string>();
  for (const { id, name } of turns.flatMap(({ calls = [] }) => calls)) names.set(id, name);
  return turns.map((turn) => {
    const name = turn.callId === undefined ? undefined : names.get(turn.callId);
    return turn.name !== undefined || name === undefined ? turn : { ...turn, name };
  });
}

/** As Hugging Face's templates want it: arguments are objects. */
function messageOf({ role, content, calls, callId, name }: Turn): ChatMessage {
  return {
    role,
    content,
    ...(calls === undefined || calls.length === 0 ? {} : { tool_calls: calls.map(templateCallOf) }),
    ...(callId === undefined ? {} : { tool_call_id: callId }),
    ...(name === undefined ? {} : { name }),
  };
}

function templateCallOf({ id, name, arguments: text }: ToolCall) {
  return { id, type: "function", function: { name, arguments: argumentsOf(text) } };
}

/** What a client sends back may be what the model was cut short in: then it stays text. */
export function argumentsOf(text: string): unknown {
  if (text.trim() === "") return {};
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A template that knows only roles and texts is told everything in words. */
function turnsInWords(turns: readonly Turn[], tools: readonly Tool[]): ChatMessage[] {
  const messages = joinedResults(turns).map(({ role, content, calls = [] }) => ({
    role: role === "tool" ? "user" : role,
    content: [content, ...calls.map(callInWords)].filter((text) => text !== "").join("\n"),
  }));
  if (tools.length === 0) return messages;
  const [first, ...rest] = messages;
  const instructions = toolsInWords(tools);
  if (first?.role !== "system") return [{ role: "system", content: instructions }, ...messages];
  return [{ ...first, content: `${first.content}\n\n${instructions}` }, ...rest];
}

/** Results that follow each other are one message, as many templates want turns to alternate. */
function joinedResults(turns: readonly Turn[]): Turn[] {
  const joined: Turn[] = [];
  for (const turn of turns) {
    if (turn.role !== "tool") {
      joined.push(turn);
      continue;
    }
    const content = `<tool_response>\n${turn.content}\n</tool_response>`;
    const last = joined.at(-1);
    if (last?.role === "tool") last.content += `\n${content}`;
    else joined.push({ ...turn, content });
  }
  return joined;
}

function callInWords({ name, arguments: text }: ToolCall): string {
  return `${CALL_START}\n${JSON.stringify({ name, arguments: argumentsOf(text) })}\n${CALL_END}`;
}

function toolsInWords(tools: readonly Tool[]): string {
  return `You can call functions. These are their signatures, one a line:
<tools>
${tools.map((tool) => JSON.stringify(tool)).join("\n")}
</tools>
To call one, answer with a JSON object of its name and arguments:
${CALL_START}
{"name": <name>, "arguments": <object>}
${CALL_END}`;
}
