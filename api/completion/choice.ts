/** One choice's way from tokens to events, with the observer told of it. */
import type { Generation, GenerationResult, TokenLogprob } from "../../runtime/types.ts";
import type { CompletionObserver } from "../services.ts";
import { ToolCallParser } from "./tool_call_parser.ts";
import type { ChoiceReason, CompletionEvent, TextEvent } from "./types.ts";

export interface ChoiceInput {
  generation: Generation;
  choice: number;
  promptTokens: number;
  parsesToolCalls: boolean;
  observer: CompletionObserver;
  /** When the request came: `performance.now()`. */
  startedMs: number;
}

/** The events of one generation, the end last. @throws What the generation throws. */
export async function* choiceEvents(input: ChoiceInput): AsyncGenerator<CompletionEvent> {
  const { generation, choice } = input;
  const parser = input.parsesToolCalls ? new ToolCallParser() : new PlainText();
  const watch = new ChoiceWatch(input);
  const logprobs: TokenLogprob[] = [];
  const withTokens = <T>(event: T) => ({ ...event, choice, logprobs: logprobs.splice(0) });
  try {
    for await (const piece of generation) {
      watch.came(piece.tokenIds.length);
      logprobs.push(...piece.logprobs ?? []);
      for (const event of parser.push(piece.text)) yield withTokens(event);
    }
    const result = await generation;
    for (const event of parser.flush()) yield withTokens(event);
    const reason = reasonOf(result, parser);
    watch.ended(result, reason);
    yield withTokens({ kind: "end" as const, reason, result });
  } catch (error) {
    watch.failed();
    throw error;
  }
}

/** A text in which nothing is looked for. */
class PlainText {
  readonly calls = 0;
  readonly isWhole = true;

  push(text: string): TextEvent[] {
    return [{ kind: "text", text }];
  }

  flush(): TextEvent[] {
    return [];
  }
}

/** A stop string may end a text within a call: that can't be made. */
function reasonOf(
  { finishReason }: GenerationResult,
  { calls, isWhole }: Pick<ToolCallParser, "calls" | "isWhole">,
): ChoiceReason {
  return finishReason === "stop" && calls > 0 && isWhole ? "tool_calls" : finishReason;
}

/** Tells the observer when tokens come. */
class ChoiceWatch {
  #lastMs: number | null = null;
  #tokens = 0;

  constructor(
    private readonly input: Pick<ChoiceInput, "observer" | "promptTokens" | "startedMs">,
  ) {}

  came(count: number): void {
    const { observer, startedMs } = this.input;
    const nowMs = performance.now();
    if (this.#lastMs === null) observer.firstToken(nowMs - startedMs);
    else observer.tokens(count, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.#tokens += count;
  }

  ended(result: GenerationResult, reason: string): void {
    const { promptTokens, cachedTokens, completionTokens, timings: { queueMs } } = result;
    this.input.observer.ended({ queueMs, promptTokens, cachedTokens, completionTokens, reason });
  }

  failed(): void {
    this.input.observer.ended({
      promptTokens: this.input.promptTokens,
      cachedTokens: 0,
      completionTokens: this.#tokens,
      reason: "error",
    });
  }
}
