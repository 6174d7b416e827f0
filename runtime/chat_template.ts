/**
 * Chat templates: the Jinja text of tokenizer_config.json or chat_template.jinja, rendered as
 * transformers' apply_chat_template does.
 */
import { Template } from "@huggingface/jinja";
import { type Companions, folderCompanions } from "./companions.ts";
import { ChatTemplateError, CheckpointError, reasonOf, shown } from "./errors.ts";
import { isJsonObject, type Json } from "./json.ts";
import { type StreamingTokenizer, tokenContent } from "./tokenizer.ts";
import type { ChatMessage } from "./types.ts";

export interface ChatTemplateOptions {
  /** End with the beginning of an assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** JSON schemas of functions that the model may call. */
  tools?: readonly unknown[];
  /** Further variables that the template knows, for example `date_string`. */
  variables?: Readonly<Record<string, unknown>>;
}

export interface ChatTemplate {
  /** Jinja. */
  readonly source: string;
  /** @throws {ChatTemplateError} If the template refuses the messages or fails. */
  render(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
}

/** Templates by name; `default` is what chats use, `tool_use` where there are tools. */
type NamedSources = ReadonlyMap<string, string>;

/** Special tokens that templates may write, under the names that templates use. */
const TOKEN_KEYS = ["bos_token", "eos_token", "unk_token", "pad_token"] as const;
export type TemplateTokens = Partial<Record<(typeof TOKEN_KEYS)[number], string>>;

/**
 * The chat template of a model's folder or of its companions, or null when it has none.
 * @throws {CheckpointError} If the files are damaged or the template is no valid Jinja.
 */
export async function loadChatTemplate(
  source: string | Companions,
): Promise<ChatTemplate | null> {
  const companions = typeof source === "string" ? folderCompanions(source) : source;
  const config = await companions.json("tokenizer_config.json");
  const map = await companions.json("special_tokens_map.json");
  const file = await companions.text("chat_template.jinja");
  const sources = file === null ? sourcesOf(config) : new Map([["default", file]]);
  return sources.size === 0
    ? null
    : createNamed(sources, { ...tokensOf(map), ...tokensOf(config) });
}

/** A template from its text. @throws {CheckpointError} If it is no valid Jinja. */
export function createChatTemplate(source: string, tokens: TemplateTokens = {}): ChatTemplate {
  return createNamed(new Map([["default", source]]), tokens);
}

/**
 * Ids of a rendered chat. Some templates write the BOS token themselves and some leave it to the
 * tokenizer; either way it comes once.
 */
export function encodeChat(tokenizer: StreamingTokenizer, rendered: string): number[] {
  return chatIds(tokenizer, tokenizer.encode(rendered, { addSpecialTokens: false }));
}

/** As `encodeChat`, with pauses for the event loop. */
export async function encodeChatInTurns(
  tokenizer: StreamingTokenizer,
  rendered: string,
): Promise<number[]> {
  return chatIds(tokenizer, await tokenizer.encodeInTurns(rendered, { addSpecialTokens: false }));
}

function chatIds({ around: { before, after } }: StreamingTokenizer, bare: number[]): number[] {
  const isThere = before.length > 0 && bare[0] === before[0];
  return isThere ? bare : [...before, ...bare, ...after];
}

function sourcesOf(config: Json): NamedSources {
  const value = isJsonObject(config) ? config.chat_template ?? [] : [];
  if (typeof value === "string") return new Map([["default", value]]);
  const sources = new Map<string, string>();
  for (const entry of Array.isArray(value) ? value : [value]) {
    const { name, template } = isJsonObject(entry) ? entry : {};
    if (typeof name !== "string" || typeof template !== "string") {
      throw new CheckpointError(
        "Cannot read tokenizer_config.json: chat_template must be a string or a list of " +
          `{name, template}: current value is ${shown(value)}`,
      );
    }
    sources.set(name, template);
  }
  return sources;
}

function tokensOf(json: Json): TemplateTokens {
  const tokens: TemplateTokens = {};
  for (const key of TOKEN_KEYS) {
    const content = isJsonObject(json) ? tokenContent(json[key]) : null;
    if (content !== null) tokens[key] = content;
  }
  return tokens;
}

function createNamed(sources: NamedSources, tokens: TemplateTokens): ChatTemplate {
  const templates = new Map([...sources].map(([name, source]) => [name, compiled(source)]));
  const fallback = templates.get("default") ?? templates.values().next().value!;
  return {
    source: sources.get("default") ?? sources.values().next().value!,
    render: (messages, { addGenerationPrompt = true, tools, variables } = {}) => {
      const template = tools === undefined ? fallback : templates.get("tool_use") ?? fallback;
      return rendered(template, {
        ...tokens,
        ...variables,
        messages,
        // Templates test `tools is not none`, which an undefined variable passes.
        tools: tools ?? null,
        add_generation_prompt: addGenerationPrompt,
      });
    },
  };
}

/**
 * Jinja has no loops without end but may count to any number, and a template comes with a model from
 * anywhere. The line's end goes with the block, so that the template's own first line is the first.
 */
const PRELUDE = "{% set range = bounded_range %}\n";
/** Numbers that the ranges of one rendering may have together. */
const MAX_RANGES = 100_000;

/** Python's range; each rendering needs its own. */
function boundedRange(): (...bounds: number[]) => number[] {
  let left = MAX_RANGES;
  return (...bounds) => {
    const [start, stop, step] = bounds.length === 1 ? [0, bounds[0], 1] : [...bounds, 1];
    const count = Math.max(0, Math.ceil((stop - start) / step));
    if (step === 0 || !Number.isInteger(count) || (left -= count) < 0) {
      throw new Error(`range(${bounds}) has no end or goes beyond ${MAX_RANGES} numbers in all`);
    }
    return Array.from({ length: count }, (_, i) => start + i * step);
  };
}

function compiled(source: string): Template {
  try {
    return new Template(PRELUDE + source);
  } catch (error) {
    throw new CheckpointError(`Cannot read the chat template: ${reasonOf(error)}`);
  }
}

function rendered(template: Template, variables: Record<string, unknown>): string {
  try {
    return template.render({ ...variables, bounded_range: boundedRange() });
  } catch (error) {
    throw new ChatTemplateError(`Cannot apply the chat template: ${reasonOf(error)}`);
  }
}
