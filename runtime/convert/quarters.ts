/** Transformers' packing of ternary matrices, the other way than `unpackCodes` of `runtime/ternary.ts`. */
import { wordsOf } from "../code_words.ts";

/**
 * Codes (n, k), one a byte, as (ceil(n / 4), k): byte (r, c) holds rows r, r + R, r + 2R, r + 3R in bits
 * 0-1, 2-3, 4-5, 6-7, with R = ceil(n / 4). Rows that there are none of are 0.
 *
 * Source: transformers' integrations/bitnet.py, pack_weights.
 */
export function packQuarters(codes: Uint8Array, n: number, k: number): Uint8Array<ArrayBuffer> {
  const quarter = Math.ceil(n / 4) * k;
  const packed = new Uint8Array(quarter);
  const words = new Uint32Array(packed.buffer, 0, quarter >> 2);
  // Quarters of the rows lie one after the other, each as long as what is packed.
  for (let part = 0; part < 4 && part * quarter < codes.length; part++) {
    const own = codes.subarray(part * quarter, (part + 1) * quarter);
    const sources = wordsOf(own);
    for (let i = 0; i < sources.length; i++) words[i] |= sources[i] << 2 * part;
    for (let i = 4 * sources.length; i < own.length; i++) packed[i] |= own[i] << 2 * part;
  }
  return packed;
}
