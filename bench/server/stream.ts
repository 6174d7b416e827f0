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
  const { reads, endMs } = await received(response.body!);
  const arrivals: number[] = [];
  const end: { usage?: Chunk; timings?: Chunk } = {};
  for (const { chunk, atMs } of chunksIn(reads)) {
    if (chunk.error !== undefined) throw new Error(chunk.error.message);
    if (chunk.choices?.[0]?.delta?.content) arrivals.push(atMs);
    end.usage = chunk.usage ?? end.usage;
    end.timings = chunk.timings ?? end.timings;
  }
  return { ...resultOf(end), sentMs, endMs, arrivals, firstMs: arrivals[0] };
}

export interface Read {
  bytes: Uint8Array;
  atMs: number;
}

/**
 * All of a body, and when each part came. It is looked at afterwards: the client shares the CPU with
 * the server, and whatever it does in between is taken from the model.
 */
async function received(
  body: ReadableStream<Uint8Array>,
): Promise<{ reads: Read[]; endMs: number }> {
  const reads: Read[] = [];
  for await (const bytes of body) reads.push({ bytes, atMs: performance.now() });
  return { reads, endMs: performance.now() };
}

/**
 * The JSON of each event, up to [DONE], and when its last byte came.
 *
 * @throws {Error} If there is no [DONE].
 */
export function* chunksIn(reads: readonly Read[]): Generator<{ chunk: Chunk; atMs: number }> {
  const decoder = new TextDecoder();
  let rest = "";
  for (const { bytes, atMs } of reads) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines.filter((line) => line.startsWith(DATA))) {
      if (line === `${DATA}[DONE]`) return;
      yield { chunk: JSON.parse(line.slice(DATA.length)), atMs };
    }
  }
  throw new Error("The stream ended without [DONE]");
}

const DATA = "data: ";

function bodyOf({ model, prompt, maxTokens, seed }: StreamRequest) {
  return {
    model,
    messages: [{ role: "user", content: prompt }],
    max_tokens: maxTokens,
    ignore_eos: true,
    // Made-up weights have no likely tokens: to find the best 40 of equals costs more than it does of
    // a real model's. Drafts depend on the text, and such text is no measure of them.
    temperature: 1,
    top_k: 4,
    speculate: "off",
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
