/** Codes four at a time: bytes of 0, 1, 2 in 32-bit words, which a conversion goes through by the billion. */

/** The two low bits of each byte, and the lowest. */
export const CODE_BITS = 0x03030303;
/** Four weights of 0. */
export const FOUR_ZEROS = 0x01010101;

/** The bytes as words, little-endian, those copied that are not aligned. Bytes after the last whole word are left out. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Uint32Array(buffer, byteOffset, byteLength >> 2);
}

/** Index of the first byte that differs, or -1 where all are the same. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  const [x, y] = [wordsOf(a.subarray(0, length)), wordsOf(b.subarray(0, length))];
  let word = 0;
  while (word < x.length && x[word] === y[word]) word++;
  for (let i = 4 * word; i < length; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : length;
}
