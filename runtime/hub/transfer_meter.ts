import type { OnProgress } from "../types.ts";

/** How much came, and how fast it comes now. */
export class TransferMeter {
  #done = 0;
  #hashed = 0;
  /** Some moments of the last seconds. */
  #samples: { atMs: number; done: number }[] = [];

  constructor(
    private readonly what: string,
    private readonly totalBytes: number,
    private readonly onProgress: OnProgress = () => {},
  ) {}

  /** @param bytes Negative if that many have to come again. */
  add(bytes: number): void {
    this.#done += bytes;
    this.#report();
  }

  /** Bytes that need not come any more. */
  skip(bytes: number): void {
    this.#samples = [];
    this.add(bytes);
  }

  /** Bytes whose hash was computed, which takes a while after the last came. */
  hashed(bytes: number): void {
    this.#hashed += bytes;
    this.#report();
  }

  #report(): void {
    const isFetching = this.#done < this.totalBytes;
    this.onProgress({
      phase: "download",
      message: `${isFetching ? "Fetching" : "Checking"} ${this.what}`,
      done: Math.max(0, isFetching ? this.#done : this.#hashed),
      total: isFetching ? this.totalBytes : Math.max(this.totalBytes, this.#hashed),
      unit: "bytes",
      perSecond: isFetching ? this.#perSecond() : undefined,
    });
  }

  #perSecond(): number | undefined {
    const now = { atMs: performance.now(), done: this.#done };
    const last = this.#samples.at(-1);
    if (last === undefined || now.atMs - last.atMs > SAMPLED_EVERY_MS) this.#samples.push(now);
    while (now.atMs - this.#samples[0].atMs > WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0] ?? now;
    const seconds = (now.atMs - first.atMs) / 1000;
    return seconds < 1 ? undefined : Math.max(0, (now.done - first.done) / seconds);
  }
}

const WINDOW_MS = 10_000;
const SAMPLED_EVERY_MS = 500;
