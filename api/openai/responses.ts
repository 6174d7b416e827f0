/** /v1/responses: what OpenAI keeps between requests must come with each of them here. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { type Completion, finishedChoices, startCompletion } from "../completion/completion.ts";
import { randomId } from "../completion/ids.ts";
import { errorFrameOf } from "../error_shapes.ts";
import { toApiError } from "../errors.ts";
import { addPost } from "../route.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { SSE_KEEP_ALIVE, SSE_TYPE, sseEvent, streamResponse } from "../sse.ts";
import { OPENAI } from "./dialect.ts";
import { ResponsesAnswer } from "./responses_answer.ts";
import { responsesRequestOf } from "./responses_request.ts";
import { ResponseEvent, ResponseObject, ResponsesRequest } from "./responses_schema.ts";

export function addResponses(app: OpenAPIHono, services: Services): void {
  addPost(app, OPENAI, {
    path: "/v1/responses",
    summary: "Answer input items",
    body: ResponsesRequest,
    answer: ResponseObject,
    stream: { contentType: SSE_TYPE, schema: ResponseEvent },
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    const request = await responsesRequestOf(body, model, randomId("resp_"));
    const completion = startCompletion(services, request, c.req.raw.signal);
    const name = body.model ?? modelNames(services)[0];
    const answer = new ResponsesAnswer(request.id, name, body, model.tokenizer);
    if (!body.stream) {
      const [choice] = await finishedChoices(completion, c.req.raw.signal);
      return c.json(answer.whole(choice));
    }
    return streamResponse(frames(answer, completion, c.req.path), {
      contentType: SSE_TYPE,
      keepAlive: SSE_KEEP_ALIVE,
      keepAliveMs: services.config.keepAliveMs,
      cancel: () => completion.abort(),
    });
  });
}

async function* frames(
  answer: ResponsesAnswer,
  completion: Completion,
  path: string,
): AsyncGenerator<string> {
  try {
    for await (const event of answer.events(completion)) yield sseEvent(event, event.type);
  } catch (error) {
    yield errorFrameOf(path, toApiError(error));
  }
}
