/** Runs at most so many tasks at once; the others wait in the order in which they came. */
export class Pool {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(private readonly most: number) {}

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running < this.most) this.#running++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      // A place goes straight to who waits longest, so that nobody slips in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

/**
 * Runs all of them at once, and waits for all also when one fails, so that none goes on behind the
 * caller's back.
 *
 * @param stop Called at the first failure, so that the others end soon.
 * @throws The first failure.
 */
export async function allOrNone<T>(
  tasks: readonly (() => Promise<T>)[],
  stop: (reason: unknown) => void,
): Promise<T[]> {
  let first: { reason: unknown } | null = null;
  const settled = await Promise.allSettled(tasks.map((task) =>
    task().catch((reason) => {
      first ??= { reason };
      stop(reason);
      throw reason;
    })
  ));
  if (first !== null) throw (first as { reason: unknown }).reason;
  return settled.map((result) => (result as PromiseFulfilledResult<T>).value);
}
