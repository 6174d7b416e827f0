/** Writes events in the shape of Anthropic's messages. */
import { argumentsOf } from "../completion/chat_prompt.ts";
import type { Completion } from "../completion/completion.ts";
import type {
  ChoiceReason,
  CompletionEvent,
  EndEvent,
  FinishedChoice,
  ToolCall,
} from "../completion/types.ts";
import type { GenerationResult } from "../../runtime/types.ts";

export function wholeMessage(id: string, model: string, choice: FinishedChoice) {
  const { text, calls } = choice;
  const said = text === "" && calls.length > 0 ? [] : [textBlock(text)];
  return {
    ...messageHead(id, model),
    content: [...said, ...calls.map(toolBlock)],
    ...stopOf(choice),
    usage: usageOf(choice.result),
  };
}

/** A message whose content comes later. */
function emptyMessage(id: string, model: string, promptTokens: number) {
  return {
    ...messageHead(id, model),
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: {
      input_tokens: promptTokens,
      output_tokens: 0,
      cache_read_input_tokens: 0,
      cache_creation_input_tokens: 0,
    },
  };
}

function messageHead(id: string, model: string) {
  return { id, type: "message" as const, role: "assistant" as const, model };
}

function textBlock(text: string) {
  return { type: "text" as const, text, citations: null };
}

function toolBlock({ name, id, arguments: text }: ToolCall) {
  return { type: "tool_use" as const, id, name, input: inputOf(text) };
}

/** A call that the token limit cut has no input yet that could be read. */
function inputOf(text: string): object {
  const value = argumentsOf(text);
  return typeof value === "object" && value !== null ? value : {};
}

const STOP_REASONS: Record<ChoiceReason, string> = {
  stop: "end_turn",
  length: "max_tokens",
  tool_calls: "tool_use",
  abort: "max_tokens",
};

function stopOf({ reason, result: { stopString } }: Pick<EndEvent, "reason" | "result">) {
  const isSequence = reason === "stop" && stopString !== null;
  return {
    stop_reason: isSequence ? "stop_sequence" : STOP_REASONS[reason],
    stop_sequence: isSequence ? stopString : null,
  };
}

/** Anthropic counts what was cached apart. */
function usageOf({ promptTokens, cachedTokens, completionTokens }: GenerationResult) {
  return {
    input_tokens: promptTokens - cachedTokens,
    output_tokens: completionTokens,
    cache_read_input_tokens: cachedTokens,
    cache_creation_input_tokens: 0,
  };
}

interface MessageEvent {
  type: string;
  [field: string]: unknown;
}

/** One block after the other: each is started, filled and stopped before the next. */
export class MessageStream {
  /** Of the block that is open. */
  #index = -1;
  #open: "text" | "tool_use" | null = null;

  constructor(
    private readonly model: string,
    private readonly completion: Completion,
  ) {}

  async *events(): AsyncGenerator<MessageEvent> {
    const { id, prompts } = this.completion.request;
    yield { type: "message_start", message: emptyMessage(id, this.model, prompts[0].length) };
    for await (const event of this.completion.events()) yield* this.#eventsOf(event);
    yield { type: "message_stop" };
  }

  *#eventsOf(event: CompletionEvent): Generator<MessageEvent> {
    switch (event.kind) {
      case "text":
        if (this.#open !== "text") yield* this.#start("text", textBlock(""));
        yield this.#delta({ type: "text_delta", text: event.text });
        return;
      case "call": {
        const { id, name } = event;
        yield* this.#start("tool_use", { type: "tool_use", id, name, input: {} });
        return;
      }
      case "arguments":
        yield this.#delta({ type: "input_json_delta", partial_json: event.text });
        return;
      case "end":
        if (this.#index < 0) yield* this.#start("text", textBlock(""));
        yield* this.#stop();
        yield { type: "message_delta", delta: stopOf(event), usage: usageOf(event.result) };
    }
  }

  *#start(kind: "text" | "tool_use", block: object): Generator<MessageEvent> {
    yield* this.#stop();
    this.#open = kind;
    yield { type: "content_block_start", index: ++this.#index, content_block: block };
  }

  *#stop(): Generator<MessageEvent> {
    if (this.#open === null) return;
    this.#open = null;
    yield { type: "content_block_stop", index: this.#index };
  }

  #delta(delta: object): MessageEvent {
    return { type: "content_block_delta", index: this.#index, delta };
  }
}
