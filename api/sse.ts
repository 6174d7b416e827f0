/** Bodies that come piece by piece, for as long as the client listens. */

export interface StreamOptions {
  contentType: string;
  /** Sent after every `keepAliveMs` of silence, so that no proxy cuts the connection. */
  keepAlive: string;
  keepAliveMs: number;
  /** The client went away. */
  cancel: () => void;
}

/** A comment: clients skip it. */
export const SSE_KEEP_ALIVE = ": ping\n\n";
export const SSE_TYPE = "text/event-stream";

/** JSON has no line breaks of its own, so that one line of data is enough. */
export function sseEvent(data: unknown, event?: string): string {
  const name = event === undefined ? "" : `event: ${event}\n`;
  return `${name}data: ${JSON.stringify(data)}\n\n`;
}

/**
 * A response whose headers go out at once and whose body is what `chunks` yields. It is asked for the
 * next chunk when the client has taken those before. `chunks` must not throw: errors have a shape
 * that only the dialect knows.
 */
export function streamResponse(chunks: AsyncIterator<string>, options: StreamOptions): Response {
  const encoder = new TextEncoder();
  const source = new PatientSource(chunks, options);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const chunk = await source.next();
      if (chunk === null) controller.close();
      else controller.enqueue(encoder.encode(chunk));
    },
    cancel() {
      options.cancel();
    },
  });
  return new Response(body, {
    headers: {
      "Content-Type": options.contentType,
      "Cache-Control": "no-cache",
      // Asks nginx not to gather what should be seen at once.
      "X-Accel-Buffering": "no",
    },
  });
}

/** Gives the keep-alive text where the next chunk takes too long. */
class PatientSource {
  #next: Promise<IteratorResult<string>> | null = null;

  constructor(
    private readonly chunks: AsyncIterator<string>,
    private readonly options: Pick<StreamOptions, "keepAlive" | "keepAliveMs">,
  ) {}

  /** The next text, or null at the end. */
  async next(): Promise<string | null> {
    const { keepAlive, keepAliveMs } = this.options;
    const next = this.#next ??= this.chunks.next();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), keepAliveMs);
    });
    const result = await Promise.race([next, silence]).finally(() => clearTimeout(timer));
    if (result === null) return keepAlive;
    this.#next = null;
    return result.done ? null : result.value;
  }
}
