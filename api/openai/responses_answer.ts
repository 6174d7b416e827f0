/** Writes events in the shape of OpenAI's responses. */
import type { Completion } from "../completion/completion.ts";
import { randomId } from "../completion/ids.ts";
import type { CompletionEvent, EndEvent, FinishedChoice, ToolCall } from "../completion/types.ts";
import type { GenerationResult, Tokenizer, TokenLogprob } from "../../runtime/types.ts";
import { chatLogprobs } from "./logprobs.ts";
import type { ResponsesBody } from "./responses_schema.ts";

type Status = "in_progress" | "completed" | "incomplete";

interface Event {
  type: string;
  [field: string]: unknown;
}

/** A message or a call that is being written. */
interface Item {
  id: string;
  /** The call; null of a message. */
  call: ToolCall | null;
  text: string;
  logprobs: OutputLogprob[];
}

type OutputLogprob = ReturnType<typeof chatLogprobs>["content"][number];

export class ResponsesAnswer {
  readonly #createdAt = Math.floor(Date.now() / 1000);
  readonly #output: object[] = [];
  #item: Item | null = null;

  /** @param model As the client calls it. */
  constructor(
    private readonly id: string,
    private readonly model: string,
    private readonly body: ResponsesBody,
    private readonly tokenizer: Tokenizer,
  ) {}

  whole({ text, calls, logprobs: tokens, reason, result }: FinishedChoice) {
    const status = statusOf(reason);
    const logprobs = this.#described(tokens);
    const said = text === "" && calls.length > 0
      ? []
      : [itemOf({ id: randomId("msg_"), call: null, text, logprobs }, status)];
    const called = calls.map((call) => itemOf(newItem(call), status));
    return this.#response(status, [...said, ...called], result);
  }

  /** Numbered, in the order of OpenAI's: the response, its items one after the other, the end. */
  async *events(completion: Completion): AsyncGenerator<Event> {
    let sequence_number = 0;
    for await (const event of this.#unnumbered(completion)) {
      yield { ...event, sequence_number: sequence_number++ };
    }
  }

  async *#unnumbered(completion: Completion): AsyncGenerator<Event> {
    const response = this.#response("in_progress", [], null);
    yield { type: "response.created", response };
    yield { type: "response.in_progress", response };
    for await (const event of completion.events()) yield* this.#eventsOf(event);
  }

  *#eventsOf(event: CompletionEvent): Generator<Event> {
    switch (event.kind) {
      case "text":
        if (this.#item === null || this.#item.call !== null) yield* this.#startMessage();
        this.#item!.text += event.text;
        yield this.#textDelta(event.text, this.#described(event.logprobs));
        return;
      case "call":
        yield* this.#startCall({ id: event.id, name: event.name, arguments: "" });
        return;
      case "arguments":
        this.#item!.call!.arguments += event.text;
        yield this.#itemEvent("response.function_call_arguments.delta", { delta: event.text });
        return;
      case "end":
        yield* this.#end(event);
    }
  }

  #textDelta(delta: string, logprobs: OutputLogprob[]): Event {
    this.#item!.logprobs.push(...logprobs);
    return this.#partEvent("response.output_text.delta", { delta, logprobs });
  }

  #described(logprobs: readonly TokenLogprob[]): OutputLogprob[] {
    return chatLogprobs(logprobs, this.tokenizer).content;
  }

  *#startMessage(): Generator<Event> {
    yield* this.#finishItem("completed");
    this.#item = newItem(null);
    yield this.#outputEvent("response.output_item.added", { ...itemOf(this.#item), content: [] });
    yield this.#partEvent("response.content_part.added", { part: textPart("", []) });
  }

  *#startCall(call: ToolCall): Generator<Event> {
    yield* this.#finishItem("completed");
    this.#item = newItem(call);
    yield this.#outputEvent("response.output_item.added", itemOf(this.#item));
  }

  *#finishItem(status: Status): Generator<Event> {
    if (this.#item === null) return;
    const { call, text, logprobs } = this.#item;
    if (call === null) {
      yield this.#partEvent("response.output_text.done", { text, logprobs });
      yield this.#partEvent("response.content_part.done", { part: textPart(text, logprobs) });
    } else {
      const { name, arguments: args } = call;
      yield this.#itemEvent("response.function_call_arguments.done", { name, arguments: args });
    }
    const item = itemOf(this.#item, status);
    yield this.#outputEvent("response.output_item.done", item);
    this.#output.push(item);
    this.#item = null;
  }

  *#end({ reason, result }: EndEvent): Generator<Event> {
    const status = statusOf(reason);
    if (this.#item === null) yield* this.#startMessage();
    yield* this.#finishItem(status);
    const response = this.#response(status, this.#output, result);
    yield { type: `response.${status}`, response };
  }

  #outputEvent(type: string, item: object): Event {
    return { type, output_index: this.#output.length, item };
  }

  #itemEvent(type: string, fields: object): Event {
    return { type, item_id: this.#item!.id, output_index: this.#output.length, ...fields };
  }

  #partEvent(type: string, fields: object): Event {
    return { ...this.#itemEvent(type, {}), content_index: 0, ...fields };
  }

  #response(status: Status, output: readonly object[], result: GenerationResult | null) {
    const { body } = this;
    return {
      id: this.id,
      object: "response" as const,
      created_at: this.#createdAt,
      status,
      error: null,
      incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" as const } : null,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      metadata: body.metadata ?? {},
      model: this.model,
      output,
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: null,
      store: false as const,
      temperature: body.temperature ?? null,
      text: { format: body.text?.format ?? { type: "text" as const } },
      tool_choice: body.tool_choice ?? "auto",
      tools: body.tools ?? [],
      top_p: body.top_p ?? null,
      truncation: "disabled" as const,
      usage: result === null ? null : usageOf(result),
    };
  }
}

function statusOf(reason: string): "completed" | "incomplete" {
  return reason === "stop" || reason === "tool_calls" ? "completed" : "incomplete";
}

function newItem(call: ToolCall | null): Item {
  return { id: randomId(call === null ? "msg_" : "fc_"), call, text: "", logprobs: [] };
}

function textPart(text: string, logprobs: readonly OutputLogprob[]) {
  return { type: "output_text" as const, text, annotations: [], logprobs: [...logprobs] };
}

function itemOf({ id, call, text, logprobs }: Item, status: Status = "in_progress") {
  if (call === null) {
    const content = [textPart(text, logprobs)];
    return { id, type: "message" as const, role: "assistant" as const, status, content };
  }
  const { id: call_id, name, arguments: args } = call;
  return { id, type: "function_call" as const, call_id, name, arguments: args, status };
}

function usageOf({ promptTokens, cachedTokens, completionTokens }: GenerationResult) {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: promptTokens + completionTokens,
  };
}
