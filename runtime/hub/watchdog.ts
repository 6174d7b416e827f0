/**
 * Ends a request whose server has fallen silent. A caller's abort ends it too, without a listener
 * that outlives the request.
 */
export class Watchdog implements AsyncDisposable {
  readonly #controller = new AbortController();
  readonly #abort = () => this.#controller.abort(this.outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hasBarked = false;

  constructor(readonly stallMs: number, private readonly outer?: AbortSignal) {
    if (outer?.aborted) this.#abort();
    outer?.addEventListener("abort", this.#abort, { once: true });
    this.touch();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** True once nothing came for `stallMs`. */
  get hasBarked(): boolean {
    return this.#hasBarked;
  }

  /** Something came. */
  touch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#hasBarked = true;
      this.#controller.abort(new DOMException("The server is silent", "TimeoutError"));
    }, this.stallMs);
  }

  /** Also ends the request, if its body was not read to its end. */
  [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    this.outer?.removeEventListener("abort", this.#abort);
    this.#controller.abort(new DOMException("Nobody reads on", "AbortError"));
    return Promise.resolve();
  }
}

/** A controller that an outer signal aborts too, until it is disposed. */
export function linkedController(outer?: AbortSignal) {
  const controller = new AbortController();
  const abort = () => controller.abort(outer?.reason);
  if (outer?.aborted) abort();
  outer?.addEventListener("abort", abort, { once: true });
  return {
    signal: controller.signal,
    abort: (reason: unknown) => controller.abort(reason),
    [Symbol.dispose]: () => outer?.removeEventListener("abort", abort),
  };
}
