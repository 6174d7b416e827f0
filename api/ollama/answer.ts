/** Writes events as Ollama's lines: one object a piece, the last with the counts. */
import { argumentsOf } from "../completion/chat_prompt.ts";
import type { Completion } from "../completion/completion.ts";
import type { CompletionEvent, EndEvent, FinishedChoice, ToolCall } from "../completion/types.ts";
import { chatLogprobs } from "../openai/logprobs.ts";
import type { GenerationResult, Tokenizer, TokenLogprob } from "../../runtime/types.ts";

/** What a line says: `response` of generations, `message` of chats. */
export type Say = (text: string, calls?: readonly ToolCall[]) => object;

export const asResponse: Say = (response) => ({ response });

export const asMessage: Say = (content, calls = []) => ({
  message: {
    role: "assistant" as const,
    content,
    ...(calls.length === 0 ? {} : { tool_calls: calls.map(callOf) }),
  },
});

function callOf({ name, arguments: text }: ToolCall) {
  const value = argumentsOf(text);
  return {
    function: { name, arguments: typeof value === "object" && value !== null ? value : {} },
  };
}

export interface AnswerOptions {
  /** As the client calls it. */
  model: string;
  say: Say;
  tokenizer: Tokenizer;
  hasLogprobs: boolean;
  /** `performance.now()` when the request came. */
  startedMs: number;
  /** More for the last line. */
  ending?: (result: GenerationResult) => object;
}

export class OllamaAnswer {
  constructor(private readonly options: AnswerOptions) {}

  whole({ text, calls, logprobs, reason, result }: FinishedChoice) {
    return { ...this.#line(this.options.say(text, calls), logprobs), ...this.#end(reason, result) };
  }

  /** Nothing was asked: the model is there. */
  loaded() {
    return { ...this.#line(this.options.say(""), []), done: true, done_reason: "load" };
  }

  /** Says that we are still here. */
  silent(): object {
    return this.#line(this.options.say(""), []);
  }

  async *lines(completion: Completion): AsyncGenerator<object> {
    /** Calls are told when they are whole: Ollama's clients know no fragments. */
    let call: ToolCall | null = null;
    for await (const event of completion.events()) {
      if (event.kind === "arguments") {
        call!.arguments += event.text;
        continue;
      }
      if (call !== null) yield this.#line(this.options.say("", [call]), []);
      call = null;
      if (event.kind === "call") call = { id: event.id, name: event.name, arguments: "" };
      else yield this.#lineOf(event);
    }
  }

  #lineOf(event: CompletionEvent & { kind: "text" | "end" }): object {
    const line = this.#line(
      this.options.say(event.kind === "text" ? event.text : ""),
      event.logprobs,
    );
    return event.kind === "text" ? line : { ...line, ...this.#end(event.reason, event.result) };
  }

  #line(said: object, logprobs: readonly TokenLogprob[]) {
    const { model, tokenizer, hasLogprobs } = this.options;
    const tokens = hasLogprobs && logprobs.length > 0
      ? { logprobs: chatLogprobs(logprobs, tokenizer).content }
      : {};
    return { model, created_at: new Date().toISOString(), ...said, done: false, ...tokens };
  }

  #end(reason: EndEvent["reason"], result: GenerationResult) {
    const { startedMs, ending } = this.options;
    const { prefillMs, decodeMs } = result.timings;
    return {
      done: true,
      done_reason: reason === "stop" || reason === "tool_calls" ? "stop" : "length",
      ...ending?.(result),
      total_duration: nanoseconds(performance.now() - startedMs),
      load_duration: 0,
      prompt_eval_count: result.promptTokens,
      prompt_eval_duration: nanoseconds(prefillMs),
      eval_count: result.completionTokens,
      eval_duration: nanoseconds(decodeMs),
    };
  }
}

export function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6);
}
