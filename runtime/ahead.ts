/**
 * The same items, of which up to `count` are made before they are asked for: so that reading,
 * packing and writing go on at the same time. An error comes in its place. Whoever stops early waits
 * for what is under way.
 */
export async function* ahead<T>(items: AsyncGenerator<T>, count: number): AsyncGenerator<T> {
  const coming: Promise<IteratorResult<T>>[] = [];
  const ask = () => {
    const item = items.next();
    // Its error is thrown when its turn comes.
    item.catch(() => {});
    coming.push(item);
  };
  try {
    for (let i = 0; i < count; i++) ask();
    while (true) {
      ask();
      const { done, value } = await coming.shift()!;
      if (done) return;
      yield value;
    }
  } finally {
    await Promise.allSettled(coming);
    await items.return(undefined);
  }
}

/** Buffers that are used again, as fresh ones cost a page fault every 4 KiB and wait for a collector. */
export class BufferPool {
  readonly #free: ArrayBuffer[] = [];
  readonly #taken = new Set<ArrayBufferLike>();

  /** `bytes` bytes at the start of a buffer of their own; what they hold is left from before. */
  take(bytes: number): Uint8Array<ArrayBuffer> {
    const index = this.#free.findIndex((buffer) => buffer.byteLength >= bytes);
    const buffer = index < 0 ? new ArrayBuffer(bytes) : this.#free.splice(index, 1)[0];
    this.#taken.add(buffer);
    return new Uint8Array(buffer, 0, bytes);
  }

  /** Gives back what `take` gave; anything else stays its owner's. */
  give({ buffer }: Uint8Array<ArrayBuffer>): void {
    if (this.#taken.delete(buffer)) this.#free.push(buffer);
  }
}
