import { ApiError } from "./errors.ts";

/** What a running request is told when the server can't wait for it any longer. */
function stoppedError(): ApiError {
  return new ApiError(503, "unavailable_error", "The server is shutting down: send it again soon", {
    code: "shutting_down",
    retryAfterSeconds: 5,
  });
}

/** Which requests run, and whether more are wanted. */
export class Lifecycle {
  readonly #running = new Set<AbortController>();
  #isDraining = false;
  /** Called when the last request ends. */
  #whenIdle: (() => void) | null = null;

  /** Whether new requests are refused. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Requests between `begin` and `end`. */
  get runningRequests(): number {
    return this.#running.size;
  }

  /** Counts a request until `end`; its controller is aborted if the server can't wait for it. */
  begin(controller: AbortController): void {
    this.#running.add(controller);
  }

  /** The request has been answered, or its client has left. */
  end(controller: AbortController): void {
    if (this.#running.delete(controller) && this.#running.size === 0) this.#whenIdle?.();
  }

  /** From now on new requests are refused. */
  stopAccepting(): void {
    this.#isDraining = true;
  }

  /**
   * Refuses new requests, gives the running ones so long to end, then aborts them and waits until
   * they have told their clients.
   *
   * @returns How many had to be aborted.
   */
  async drain(ms: number): Promise<number> {
    this.stopAccepting();
    if (await this.#idleWithin(ms)) return 0;
    const aborted = [...this.#running];
    for (const controller of aborted) controller.abort(stoppedError());
    await this.#idleWithin(LAST_WORDS_MS);
    return aborted.length;
  }

  #idleWithin(ms: number): Promise<boolean> {
    if (this.#running.size === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const finish = (isIdle: boolean) => {
        clearTimeout(timer);
        this.#whenIdle = null;
        resolve(isIdle);
      };
      const timer = setTimeout(() => finish(false), ms);
      this.#whenIdle = () => finish(true);
    });
  }
}

/** An aborted request has so long to write its error: a client that does not read can't hold us. */
const LAST_WORDS_MS = 2_000;
