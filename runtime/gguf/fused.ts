/**
 * Tensors that hold several of Hugging Face's: llama.cpp's converter writes a layer's queries, keys and
 * values as one, row after row, where it is asked to (--fuse-qkv).
 */
import { CheckpointError, shown, UnsupportedModelError } from "../errors.ts";
import type { TensorInfo } from "../tensors.ts";
import { layoutOf } from "./ggml_types.ts";

const FUSED = /^(blk\.\d{1,6}\.attn_)qkv(\.(?:weight|bias))$/;

/** Rows of each part. */
export interface FusedRows {
  q: number;
  k: number;
  v: number;
}

export function isFused(name: string): boolean {
  return FUSED.test(name);
}

/**
 * The parts of a fused tensor, by the names that they have where they are tensors.
 *
 * @throws {CheckpointError} If it does not have the rows of its parts.
 * @throws {UnsupportedModelError} If its parts can't be told apart.
 */
export function partsOf(name: string, info: TensorInfo, rows: FusedRows): Map<string, TensorInfo> {
  const { dtype, shape, byteOffset, byteLength } = info;
  if (layoutOf(dtype).extraBytes > 0) {
    throw new UnsupportedModelError(
      `Cannot use tensor ${shown(name)}: queries, keys and values in one must not be ${dtype}, ` +
        "which has one factor for all: get a file in which they are apart",
    );
  }
  const all = rows.q + rows.k + rows.v;
  if (shape[0] !== all) {
    throw new CheckpointError(
      `Cannot use tensor ${
        shown(name)
      }: by the file's keys its queries, keys and values must have ` +
        `${all} rows together: current value is ${shape[0]}`,
    );
  }
  const rowBytes = byteLength / all;
  if (!Number.isInteger(rowBytes)) {
    throw new CheckpointError(
      `Cannot use tensor ${shown(name)}: rows must be whole blocks of ${dtype}: ` +
        `current value is ${shown(shape)}`,
    );
  }
  const [, before, after] = FUSED.exec(name)!;
  const parts = new Map<string, TensorInfo>();
  let first = 0;
  for (const [part, count] of Object.entries(rows)) {
    parts.set(`${before}${part}${after}`, {
      dtype,
      shape: [count, ...shape.slice(1)],
      byteOffset: byteOffset + first * rowBytes,
      byteLength: count * rowBytes,
    });
    first += count;
  }
  return parts;
}
