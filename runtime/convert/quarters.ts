/** Transformers' packing of ternary matrices, the other way than `unpackCodes` of `runtime/ternary.ts`. */

/**
 * Codes (n, k), one a byte, as (ceil(n / 4), k): byte (r, c) holds rows r, r + R, r + 2R, r + 3R in bits
 * 0-1, 2-3, 4-5, 6-7, with R = ceil(n / 4). Rows that there are none of are 0.
 *
 * Source: transformers' integrations/bitnet.py, pack_weights.
 */
export function packQuarters(codes: Uint8Array, n: number, k: number): Uint8Array<ArrayBuffer> {
  const stored = Math.ceil(n / 4);
  const packed = new Uint8Array(stored * k);
  for (let row = 0; row < n; row++) {
    const at = row % stored * k;
    const shift = 2 * Math.floor(row / stored);
    for (let i = 0; i < k; i++) packed[at + i] |= codes[row * k + i] << shift;
  }
  return packed;
}
