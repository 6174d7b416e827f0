/** /v1/messages */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { AddRoutes } from "../app.ts";
import { type Completion, finishedChoices, startCompletion } from "../completion/completion.ts";
import { randomId } from "../completion/ids.ts";
import { errorFrameOf } from "../error_shapes.ts";
import { toApiError } from "../errors.ts";
import { addPost } from "../route.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { SSE_TYPE, sseEvent, streamResponse } from "../sse.ts";
import { MessageStream, wholeMessage } from "./answer.ts";
import { ANTHROPIC } from "./dialect.ts";
import { countedTokens, messagesRequestOf } from "./request.ts";
import {
  AnthropicMessage,
  CountRequest,
  MessageEvent,
  MessagesRequest,
  TokenCount,
} from "./schema.ts";

export const addAnthropicRoutes: AddRoutes = (app, services) => {
  addMessages(app, services);
  addCount(app, services);
};

function addMessages(app: OpenAPIHono, services: Services): void {
  addPost(app, ANTHROPIC, {
    path: "/v1/messages",
    summary: "Answer a conversation",
    body: MessagesRequest,
    answer: AnthropicMessage,
    stream: { contentType: SSE_TYPE, schema: MessageEvent },
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    const name = body.model ?? modelNames(services)[0];
    const request = await messagesRequestOf(body, model, randomId("msg_"));
    const completion = startCompletion(services, request, c.req.raw.signal);
    if (body.stream) return stream(c, services, completion, name);
    const [choice] = await finishedChoices(completion, c.req.raw.signal);
    return c.json(wholeMessage(request.id, name, choice));
  });
}

function addCount(app: OpenAPIHono, services: Services): void {
  addPost(app, ANTHROPIC, {
    path: "/v1/messages/count_tokens",
    summary: "Tokens of a conversation",
    body: CountRequest,
    answer: TokenCount,
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    return c.json({ input_tokens: await countedTokens(body, model) });
  });
}

function stream(
  c: Context,
  { config: { keepAliveMs } }: Services,
  completion: Completion,
  model: string,
): Response {
  return streamResponse(frames(new MessageStream(model, completion), c.req.path), {
    contentType: SSE_TYPE,
    keepAlive: sseEvent({ type: "ping" }, "ping"),
    keepAliveMs,
    cancel: () => completion.abort(),
  });
}

async function* frames(message: MessageStream, path: string): AsyncGenerator<string> {
  try {
    for await (const event of message.events()) yield sseEvent(event, event.type);
  } catch (error) {
    yield errorFrameOf(path, toApiError(error));
  }
}
