/** One streamed chat completion, as a client sees it. */

export interface StreamRequest {
  url: string;
  model: string;
  prompt: string;
  maxTokens: number;
  seed: number;
  signal?: AbortSignal;
}

/** Times are `performance.now()`'s. */
export interface StreamResult {
  sentMs: number;
  firstMs: number;
  endMs: number;
  /** Arrivals of chunks with text, the first one included. */
  arrivals: readonly number[];
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  /** Of the server's own clock, in tokens/s. */
  promptPerSecond: number;
  draftTokens: number;
}

// deno-lint-ignore no-explicit-any -- the server's, read field by field
type Chunk = any;

/** @throws {Error} If the server refuses, fails in between, or ends the stream without [DONE]. */
export async function streamChat(request: StreamRequest): Promise<StreamResult> {
  const sentMs = performance.now();
  const response = await fetch(`${request.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(bodyOf(request)),
    signal: request.signal,
  });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.text()).slice(0, 300)}`);
  const arrivals: number[] = [];
  const end: { usage?: Chunk; timings?: Chunk } = {};
  for await (const chunk of chunksOf(response.body!)) {
    if (chunk.error !== undefined) throw new Error(chunk.error.message);
    if (chunk.choices?.[0]?.delta?.content) arrivals.push(performance.now());
    end.usage = chunk.usage ?? end.usage;
    end.timings = chunk.timings ?? end.timings;
  }
  return { ...resultOf(end), sentMs, endMs: performance.now(), arrivals, firstMs: arrivals[0] };
}

function bodyOf({ model, prompt, maxTokens, seed }: StreamRequest) {
  return {
    model,
    messages: [{ role: "user", content: prompt }],
    max_tokens: maxTokens,
    ignore_eos: true,
    temperature: 1,
    top_k: 40,
    seed,
    stream: true,
    stream_options: { include_usage: true },
  };
}

function resultOf({ usage, timings }: { usage?: Chunk; timings?: Chunk }) {
  if (usage === undefined) throw new Error("The stream has no usage");
  return {
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    completionTokens: usage.completion_tokens,
    promptPerSecond: timings?.prompt_per_second ?? NaN,
    draftTokens: timings?.draft_n ?? 0,
  };
}

/** The JSON of each event, up to [DONE]. */
export async function* chunksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Chunk> {
  for await (const data of eventsOf(body)) {
    if (data === "[DONE]") return;
    yield JSON.parse(data);
  }
  throw new Error("The stream ended without [DONE]");
}

/** The data lines of server-sent events; comments are passed over. */
async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice("data: ".length);
  }
}
