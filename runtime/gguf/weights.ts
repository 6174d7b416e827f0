/** Matrices of GGUF's types, as packing takes them. */
import type { FloatType } from "../../codegen/model_spec.ts";
import { type BlockKind, STORED_BLOCKS, type StoredMatrix } from "../../codegen/pack/stored.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { CheckpointError, shown } from "../errors.ts";
import type { Grain } from "../exact_ternary.ts";
import { factorsIn } from "../ternary_grain.ts";
import type { FloatMatrix, TernaryWeights } from "../weights.ts";
import { floatBytes, widened } from "./float_blocks.ts";
import { layoutOf } from "./ggml_types.ts";
import { blockFactors } from "./ternary_blocks.ts";

type Stored = Pick<TernaryWeights, "matrix" | "scale" | "rowScales" | "groupScales">;

/**
 * A ternary matrix with its factors.
 *
 * @param matrix Of a kind that has blocks, with what stands behind an I2_S matrix.
 * @param grain What has a factor of its own in this model, as samples said.
 * @throws {CheckpointError} If the matrix has finer factors, or one is no factor.
 */
export function ternaryBlocks(matrix: StoredMatrix, grain: Grain, what: string): Stored {
  const { n, k, bytes } = matrix;
  const kind = matrix.kind as BlockKind;
  const found = blockFactors(bytes, kind, n * k, what);
  const factors = kind === "i2s" ? found : factorsIn(found, kind, k, grain, (index) => {
    throw unequalError(kind, index, k, grain, what);
  });
  if (kind === "i2s" || grain === "matrix") return { matrix, scale: factors[0] };
  return grain === "row"
    ? { matrix, scale: null, rowScales: factors }
    : { matrix, scale: null, groupScales: factors };
}

function unequalError(kind: BlockKind, index: number, k: number, grain: Grain, what: string) {
  const perRow = k / STORED_BLOCKS[kind].weights;
  const [row, block] = [Math.floor(index / perRow), index % perRow];
  const share = grain === "matrix" ? "a matrix" : grain === "row" ? "a row" : `${grain} features`;
  return new CheckpointError(
    `Cannot use ${what}: all weights of ${share} must have one factor, as samples of all linears have: ` +
      `the factor of row ${row}, block ${block} is another: get the model in another type, or its ` +
      "safetensors files",
  );
}

/** Rows of a quantised or ternary tensor as floats, widened as they are read. */
export function wideMatrix(checkpoint: Checkpoint, name: string, type: FloatType): FloatMatrix {
  const { shape, dtype, byteLength } = checkpoint.tensors.get(name)!;
  const [rows, columns] = shape;
  const { blockWeights, blockBytes, extraBytes } = layoutOf(dtype);
  const rowBytes = columns / blockWeights * blockBytes;
  const what = shown(name);
  return {
    type,
    rows,
    columns,
    async readRows(first, count, allocate) {
      const bytes = await checkpoint.readRange(name, first * rowBytes, count * rowBytes);
      const factor = extraBytes === 0
        ? 1
        : await tensorFactor(checkpoint, name, byteLength - extraBytes);
      const floats = floatBytes(widened(bytes, dtype, what, factor), type, what);
      if (allocate === undefined) return floats;
      const out = allocate(floats.length);
      out.set(floats);
      return out;
    },
  };
}

/** What stands behind an I2_S tensor. */
async function tensorFactor(checkpoint: Checkpoint, name: string, at: number): Promise<number> {
  const bytes = await checkpoint.readRange(name, at, 4);
  const factor = new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
  if (factor >= 0 && factor < Infinity) return factor;
  throw new CheckpointError(
    `Cannot use ${
      shown(name)
    }: its factor must be finite and not negative: current value is ${factor}`,
  );
}
