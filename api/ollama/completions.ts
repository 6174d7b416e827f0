/** /api/generate and /api/chat */
import type { OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { type Completion, finishedChoices, startCompletion } from "../completion/completion.ts";
import type { CompletionRequest } from "../completion/types.ts";
import { errorFrameOf } from "../error_shapes.ts";
import { toApiError } from "../errors.ts";
import { addPost } from "../route.ts";
import type { Services } from "../services.ts";
import { streamResponse } from "../sse.ts";
import type { Model } from "../../runtime/types.ts";
import { asMessage, asResponse, OllamaAnswer, type Say } from "./answer.ts";
import { OLLAMA } from "./dialect.ts";
import { ollamaModel, ollamaName } from "./names.ts";
import { chatRequestOf, generateRequestOf } from "./request.ts";
import {
  ChatAnswer,
  type ChatBody,
  ChatRequest,
  GenerateAnswer,
  type GenerateBody,
  GenerateRequest,
} from "./schema.ts";

const NDJSON_TYPE = "application/x-ndjson";

/** One of the two routes. */
interface Kind<S extends z.ZodType<GenerateBody | ChatBody>> {
  path: string;
  summary: string;
  body: S;
  answer: z.ZodType;
  say: Say;
  /** Null where nothing is asked but that the model is there. */
  request: (body: z.output<S>, model: Model) => Promise<CompletionRequest> | null;
  /** The last line tells the tokens, to go on from. */
  hasContext: boolean;
}

export function addCompletions(app: OpenAPIHono, services: Services): void {
  addKind(app, services, {
    path: "/api/generate",
    summary: "Answer a prompt",
    body: GenerateRequest,
    answer: GenerateAnswer,
    say: asResponse,
    request: (body, model) => body.prompt ? generateRequestOf(body, body.prompt, model) : null,
    hasContext: true,
  });
  addKind(app, services, {
    path: "/api/chat",
    summary: "Answer a conversation",
    body: ChatRequest,
    answer: ChatAnswer,
    say: asMessage,
    request: (body, model) => body.messages?.length ? chatRequestOf(body, model) : null,
    hasContext: false,
  });
}

function addKind<S extends z.ZodType<GenerateBody | ChatBody>>(
  app: OpenAPIHono,
  services: Services,
  kind: Kind<S>,
): void {
  const stream = { contentType: NDJSON_TYPE, schema: kind.answer };
  addPost(app, OLLAMA, { ...kind, stream }, async (body, c) => {
    const startedMs = performance.now();
    const model = ollamaModel(services, body.model);
    const request = await kind.request(body, model);
    const answer = new OllamaAnswer({
      model: body.model ?? ollamaName(services),
      say: kind.say,
      tokenizer: model.tokenizer,
      hasLogprobs: body.logprobs ?? false,
      startedMs,
      ending: ({ tokenIds }) =>
        kind.hasContext ? { context: [...request!.prompts[0], ...tokenIds] } : {},
    });
    if (request === null) return c.json(answer.loaded());
    const completion = startCompletion(services, request, c.req.raw.signal);
    if (body.stream ?? true) return streamed(c, services, completion, answer);
    const [choice] = await finishedChoices(completion, c.req.raw.signal);
    return c.json(answer.whole(choice));
  });
}

function streamed(
  c: Context,
  { config: { keepAliveMs } }: Services,
  completion: Completion,
  answer: OllamaAnswer,
): Response {
  return streamResponse(frames(completion, answer, c.req.path), {
    contentType: NDJSON_TYPE,
    keepAlive: lineOf(answer.silent()),
    keepAliveMs,
    cancel: () => completion.abort(),
  });
}

async function* frames(
  completion: Completion,
  answer: OllamaAnswer,
  path: string,
): AsyncGenerator<string> {
  try {
    for await (const line of answer.lines(completion)) yield lineOf(line);
  } catch (error) {
    yield errorFrameOf(path, toApiError(error));
  }
}

function lineOf(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
