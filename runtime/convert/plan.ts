/** What a conversion writes: known before the first weight is read. */

/** A piece of an output file that is made as a whole: a tensor, mostly. */
export interface Part {
  /** For errors and reports. */
  what: string;
  /** From the file's start; parts lie in rising order, gaps are zeros. */
  offset: number;
  bytes: number;
  /** Its bytes in order. */
  chunks(): AsyncIterable<Uint8Array>;
  /** Its bytes, where they are known beforehand: when they change, all is made anew. */
  content?: Uint8Array;
}

export interface PlannedFile {
  /** Without a folder. */
  name: string;
  /** What the file begins with. */
  head: Uint8Array;
  parts: readonly Part[];
  bytes: number;
}

/** Pieces of a float matrix that are in memory at once. */
const CHUNK_BYTES = 4 << 20;

/** First rows and counts of pieces of a matrix. */
export function* rowChunks(
  rows: number,
  rowBytes: number,
): Generator<{ first: number; count: number }> {
  const most = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  for (let first = 0; first < rows; first += most) {
    yield { first, count: Math.min(most, rows - first) };
  }
}

/** A part that is small, or made at once. */
export async function* whole(
  bytes: Promise<Uint8Array> | Uint8Array,
): AsyncGenerator<Uint8Array> {
  yield await bytes;
}
