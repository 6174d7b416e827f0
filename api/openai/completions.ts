/** /v1/completions */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { GenerationResult, Model } from "../../runtime/types.ts";
import {
  checkPrompts,
  type Completion,
  finishedChoices,
  startCompletion,
} from "../completion/completion.ts";
import { compileConstraint } from "../completion/constraint.ts";
import { randomId } from "../completion/ids.ts";
import { engineOptionsOf, maxTokensOf, samplerOf, stopsOf } from "../completion/options_schema.ts";
import { type Prompt, promptIds, promptsOf } from "../completion/prompt_input.ts";
import type { CompletionEvent, CompletionRequest, FinishedChoice } from "../completion/types.ts";
import { timingsOf, usageOf } from "../completion/usage.ts";
import { ApiError } from "../errors.ts";
import { addPost } from "../route.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { SSE_TYPE } from "../sse.ts";
import { type CompletionsBody, CompletionsRequest, TextCompletion } from "./completions_schema.ts";
import { constraintOf } from "./constraint_schema.ts";
import { OPENAI } from "./dialect.ts";
import { type Echo, echoesOf } from "./echo.ts";
import { addedBy, completionLogprobs, type NamedLogprob } from "./logprobs.ts";
import { openAiStream } from "./stream.ts";
import { openAiUsage } from "./usage.ts";

/** OpenAI's. */
const DEFAULT_MAX_TOKENS = 16;

export function addCompletions(app: OpenAPIHono, services: Services): void {
  addPost(app, OPENAI, {
    path: "/v1/completions",
    summary: "Go on from a text",
    body: CompletionsRequest,
    answer: TextCompletion,
    stream: { contentType: SSE_TYPE, schema: TextCompletion },
  }, async (body, c) => {
    checkBody(body);
    const model = servedModel(services, body.model);
    const prompts = promptsOf(body.prompt);
    const request = await completionRequestOf(body, prompts, model);
    checkPrompts(services, request);
    const { signal } = c.req.raw;
    const echoes = await echoesOf(body, prompts, request.prompts, { model, signal });
    const completion = startCompletion(services, request, signal);
    const answer = new TextAnswer(body, echoes, { model, completion, services });
    if (body.stream) return openAiStream(c, services, completion, answer.chunks());
    return c.json(answer.whole(await finishedChoices(completion, signal)));
  });
}

function checkBody({ best_of: bestOf, n }: CompletionsBody): void {
  if (bestOf !== undefined && bestOf !== null && bestOf !== (n ?? 1)) {
    throw invalid("best_of", `best_of must be n: current value is ${bestOf}, leave it out`);
  }
}

function invalid(param: string, rule: string): ApiError {
  return new ApiError(400, "invalid_request_error", `Cannot complete as ${rule}`, { param });
}

async function completionRequestOf(
  body: CompletionsBody,
  prompts: readonly Prompt[],
  model: Model,
): Promise<CompletionRequest> {
  return {
    id: randomId("cmpl-"),
    promptField: "prompt",
    prompts: await Promise.all(prompts.map((prompt) => promptIds(prompt, model))),
    choicesPerPrompt: body.n ?? 1,
    options: {
      ...samplerOf(body, model),
      ...maxTokensOf(body.max_tokens, DEFAULT_MAX_TOKENS),
      stop: stopsOf(body.stop),
      ...engineOptionsOf(body),
      ...(typeof body.logprobs === "number" ? { logprobs: body.logprobs } : {}),
    },
    grammar: await compileConstraint(model, constraintOf(body)),
    parsesToolCalls: false,
  };
}

interface Context {
  model: Model;
  completion: Completion;
  services: Services;
}

/** Writes events in the shape of completions. */
class TextAnswer {
  readonly #head;
  readonly #results: GenerationResult[] = [];
  /** Characters of every choice's text so far: where the next token's is. */
  readonly #offsets = new Map<number, number>();

  constructor(
    private readonly body: CompletionsBody,
    private readonly echoes: readonly Echo[],
    private readonly context: Context,
  ) {
    this.#head = {
      id: context.completion.request.id,
      object: "text_completion" as const,
      created: Math.floor(Date.now() / 1000),
      model: body.model ?? modelNames(context.services)[0],
    };
  }

  whole(choices: readonly FinishedChoice[]) {
    const results = choices.map(({ result }) => result);
    return {
      ...this.#head,
      choices: choices.map(({ text, logprobs, reason }, index) => {
        const echo = this.#echoOf(index);
        return {
          index,
          text: echo.text + text,
          logprobs: this.#logprobs(index, [...echo.logprobs, ...logprobs]),
          finish_reason: reasonOf(reason),
        };
      }),
      usage: openAiUsage(usageOf(results, this.#choicesPerPrompt)),
      timings: timingsOf(results, this.#choicesPerPrompt),
    };
  }

  async *chunks(): AsyncGenerator<unknown> {
    const { prompts, choicesPerPrompt } = this.context.completion.request;
    for (let index = 0; this.body.echo && index < prompts.length * choicesPerPrompt; index++) {
      const { text, logprobs } = this.#echoOf(index);
      yield this.#chunk(index, text, logprobs);
    }
    for await (const event of this.context.completion.events()) {
      if (event.kind === "text") yield this.#chunk(event.choice, event.text, event.logprobs);
      if (event.kind === "end") yield this.#lastChunk(event, prompts.length * choicesPerPrompt);
    }
    if (this.body.stream_options?.include_usage) {
      const usage = openAiUsage(usageOf(this.#results, choicesPerPrompt));
      yield { ...this.#head, choices: [], usage };
    }
  }

  get #choicesPerPrompt(): number {
    return this.context.completion.request.choicesPerPrompt;
  }

  #echoOf(index: number): Echo {
    return this.echoes[Math.floor(index / this.#choicesPerPrompt)];
  }

  #lastChunk(event: CompletionEvent & { kind: "end" }, choices: number) {
    this.#results[event.choice] = event.result;
    const last = this.#chunk(event.choice, "", event.logprobs, reasonOf(event.reason));
    const isOver = Object.keys(this.#results).length === choices;
    return isOver ? { ...last, timings: timingsOf(this.#results, this.#choicesPerPrompt) } : last;
  }

  #chunk(
    index: number,
    text: string,
    logprobs: readonly NamedLogprob[],
    finishReason: "stop" | "length" | null = null,
  ) {
    return {
      ...this.#head,
      choices: [{
        index,
        text,
        logprobs: logprobs.length === 0 ? null : this.#logprobs(index, logprobs),
        finish_reason: finishReason,
      }],
      ...(this.body.stream_options?.include_usage ? { usage: null } : {}),
    };
  }

  #logprobs(index: number, logprobs: readonly NamedLogprob[]) {
    if (typeof this.body.logprobs !== "number") return null;
    const { tokenizer } = this.context.model;
    const offset = this.#offsets.get(index) ?? 0;
    const length = logprobs.reduce((sum, token) => sum + addedBy(token, tokenizer).length, 0);
    this.#offsets.set(index, offset + length);
    return completionLogprobs(logprobs, tokenizer, offset);
  }
}

function reasonOf(reason: string): "stop" | "length" {
  return reason === "stop" ? "stop" : "length";
}
