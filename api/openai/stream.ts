import type { Context } from "hono";
import type { Completion } from "../completion/completion.ts";
import { errorFrameOf } from "../error_shapes.ts";
import { toApiError } from "../errors.ts";
import type { Services } from "../services.ts";
import { SSE_KEEP_ALIVE, SSE_TYPE, sseEvent, streamResponse } from "../sse.ts";

const DONE = "data: [DONE]\n\n";

/** Chunks as OpenAI streams them. A failure is the last event, as the status is out already. */
export function openAiStream(
  c: Context,
  { config: { keepAliveMs } }: Services,
  completion: Completion,
  chunks: AsyncIterable<unknown>,
): Response {
  return streamResponse(frames(chunks, c.req.path), {
    contentType: SSE_TYPE,
    keepAlive: SSE_KEEP_ALIVE,
    keepAliveMs,
    cancel: () => completion.abort(),
  });
}

async function* frames(chunks: AsyncIterable<unknown>, path: string): AsyncGenerator<string> {
  try {
    for await (const chunk of chunks) yield sseEvent(chunk);
    yield DONE;
  } catch (error) {
    yield errorFrameOf(path, toApiError(error));
  }
}
