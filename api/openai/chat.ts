/** /v1/chat/completions */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { randomId } from "../completion/ids.ts";
import { type Completion, finishedChoices, startCompletion } from "../completion/completion.ts";
import type {
  ChoiceReason,
  CompletionEvent,
  FinishedChoice,
  ToolCall,
} from "../completion/types.ts";
import { timingsOf, usageOf } from "../completion/usage.ts";
import type { GenerationResult, Model } from "../../runtime/types.ts";
import { addPost } from "../route.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { SSE_TYPE } from "../sse.ts";
import { openAiStream } from "./stream.ts";
import { chatRequestOf } from "./chat_request.ts";
import { type ChatBody, ChatCompletion, ChatCompletionChunk, ChatRequest } from "./chat_schema.ts";
import { OPENAI } from "./dialect.ts";
import { chatLogprobs } from "./logprobs.ts";
import { openAiUsage } from "./usage.ts";

export function addChat(app: OpenAPIHono, services: Services): void {
  addPost(app, OPENAI, {
    path: "/v1/chat/completions",
    summary: "Answer a conversation",
    body: ChatRequest,
    answer: ChatCompletion,
    stream: { contentType: SSE_TYPE, schema: ChatCompletionChunk },
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    const request = await chatRequestOf(body, model, randomId("chatcmpl-"));
    const completion = startCompletion(services, request, c.req.raw.signal);
    const answer = new ChatAnswer(body, model, completion, services);
    if (body.stream) return openAiStream(c, services, completion, answer.chunks());
    return c.json(answer.whole(await finishedChoices(completion, c.req.raw.signal)));
  });
}

/** Writes events in the shape of chats. */
class ChatAnswer {
  readonly #head: { id: string; created: number; model: string };
  readonly #results: GenerationResult[] = [];

  constructor(
    private readonly body: ChatBody,
    private readonly model: Model,
    private readonly completion: Completion,
    services: Services,
  ) {
    const name = body.model ?? modelNames(services)[0];
    const created = Math.floor(Date.now() / 1000);
    this.#head = { id: completion.request.id, created, model: name };
  }

  whole(choices: readonly FinishedChoice[]) {
    const results = choices.map(({ result }) => result);
    return {
      ...this.#head,
      object: "chat.completion" as const,
      choices: choices.map((choice, index) => ({
        index,
        message: messageOf(choice),
        logprobs: this.#logprobs(choice.logprobs),
        finish_reason: finishReasonOf(choice.reason),
      })),
      usage: openAiUsage(usageOf(results, this.#choices)),
      timings: timingsOf(results, this.#choices),
    };
  }

  /** The role of every choice, what comes, and at the end the usage if it is wanted. */
  async *chunks(): AsyncGenerator<unknown> {
    for (let index = 0; index < this.#choices; index++) {
      yield this.#chunk(index, { role: "assistant" as const, content: "" }, []);
    }
    for await (const event of this.completion.events()) yield this.#chunkOf(event);
    if (this.body.stream_options?.include_usage) yield this.#usageChunk();
  }

  get #choices(): number {
    return this.completion.request.choicesPerPrompt;
  }

  #chunkOf(event: CompletionEvent) {
    if (event.kind !== "end") return this.#chunk(event.choice, deltaOf(event), event.logprobs);
    this.#results[event.choice] = event.result;
    const last = this.#chunk(event.choice, {}, event.logprobs, finishReasonOf(event.reason));
    const isOver = Object.keys(this.#results).length === this.#choices;
    return isOver ? { ...last, timings: timingsOf(this.#results, this.#choices) } : last;
  }

  #chunk(
    index: number,
    delta: object,
    logprobs: CompletionEvent["logprobs"],
    finishReason: string | null = null,
  ) {
    return {
      ...this.#head,
      object: "chat.completion.chunk" as const,
      choices: [{
        index,
        delta,
        logprobs: logprobs.length === 0 ? null : this.#logprobs(logprobs),
        finish_reason: finishReason,
      }],
      ...(this.body.stream_options?.include_usage ? { usage: null } : {}),
    };
  }

  #usageChunk() {
    return {
      ...this.#head,
      object: "chat.completion.chunk" as const,
      choices: [],
      usage: openAiUsage(usageOf(this.#results, this.#choices)),
    };
  }

  #logprobs(logprobs: CompletionEvent["logprobs"]) {
    return this.body.logprobs ? chatLogprobs(logprobs, this.model.tokenizer) : null;
  }
}

/** A model that closes ends answers early, as a limit does. */
export function finishReasonOf(reason: ChoiceReason) {
  return reason === "abort" ? "length" : reason;
}

function messageOf({ text, calls }: FinishedChoice) {
  return {
    role: "assistant" as const,
    content: text === "" && calls.length > 0 ? null : text,
    refusal: null,
    ...(calls.length === 0 ? {} : { tool_calls: calls.map(callOf) }),
  };
}

function callOf({ id, name, arguments: text }: ToolCall) {
  return { id, type: "function" as const, function: { name, arguments: text } };
}

function deltaOf(event: CompletionEvent & { kind: "text" | "call" | "arguments" }) {
  switch (event.kind) {
    case "text":
      return { content: event.text };
    case "call": {
      const { call: index, id, name } = event;
      return { tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] };
    }
    case "arguments":
      return { tool_calls: [{ index: event.call, function: { arguments: event.text } }] };
  }
}
