const f = Math.fround;

/**
 * Rotary position embedding of one head, in place, half-split (NeoX) pairing: features i and
 * i + rotaryDim / 2 turn by the angle of frequency i. Features from rotaryDim on stay.
 *
 * @param cos (rotaryDim / 2,) of this position; sin likewise.
 * Source: RoFormer, arXiv 2104.09864; transformers, apply_rotary_pos_emb.
 */
export function rotate(head: Float32Array, cos: Float32Array, sin: Float32Array): void {
  const half = cos.length;
  for (let i = 0; i < half; i++) {
    const a = head[i];
    const b = head[i + half];
    head[i] = f(f(a * cos[i]) - f(b * sin[i]));
    head[i + half] = f(f(b * cos[i]) + f(a * sin[i]));
  }
}
