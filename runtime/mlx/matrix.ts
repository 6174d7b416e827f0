/**
 * Matrices as MLX packs them. `X.weight` is of words of 32 bits, which hold the codes of neighbouring
 * features of a row, the first in the lowest bits. Beside it are
 *
 *     X.scales, X.biases   (n, k / group): w = scale * code + bias, "affine"
 *     X.row_alpha          (n): w = alpha * (code - 1), DeepGrove's own, of 2 bits
 *
 * Two bits are ternary weights here: a bias must be -scale. In little-endian words their codes are in the
 * order of Q2_0's, so they are given as blocks of that type, whose factors are then those of the file.
 * Four and eight bits are floats, and given in half precision, as those of GGUF's types are: that rounds
 * less than the quantisation did.
 *
 * Sources: MLX's documentation of `quantize` and `dequantize`; the description of
 * deepgrove/maple-preview-2bit-mlx.
 */
import { CheckpointError, shown, UnsupportedModelError } from "../errors.ts";
import { toFloat32, valuesOf } from "../float_formats.ts";
import { bytesOf, layoutOf } from "../gguf/ggml_types.ts";
import type { TensorInfo } from "../tensors.ts";
import type { Settings } from "./settings.ts";

/** Bytes of tensors that belong together, read by position. */
export type ReadRange = (name: string, start: number, length: number) => Promise<Uint8Array>;

/** A matrix, or a stack of such, in a type that is not MLX's own. */
export interface MlxMatrix {
  readonly info: TensorInfo;
  readonly rows: number;
  /** Writes rows first .. first + count to `out`, which begins at an even place of its buffer. */
  readRows(read: ReadRange, first: number, count: number, out: Uint8Array): Promise<void>;
}

const WORD_BYTES = 4;
const REMEDY = "get the model as MLX's 2 bits, as safetensors of 16 bits, or as a GGUF file";
/** Linears of layers, of which all must be ternary. */
const LINEAR = /_proj$/;

type Tensors = ReadonlyMap<string, TensorInfo>;

/** The tensors that a matrix has beside its words. */
export const FACTOR_NAMES = ["scales", "biases", "row_alpha"] as const;

/**
 * The matrix of a module, from the headers of its tensors.
 *
 * @param module Its name without the last part.
 * @throws {CheckpointError} If their shapes do not fit.
 * @throws {UnsupportedModelError} If it is packed in a way that is not read.
 */
export function mlxMatrix(
  module: string,
  tensors: Tensors,
  settingsOf: (module: string) => Settings,
): MlxMatrix {
  const [words, scales, biases, alpha] = ["weight", ...FACTOR_NAMES].map((name) =>
    tensors.get(`${module}.${name}`)
  );
  if (words!.shape.length < 2 || words!.shape.includes(0)) {
    throw misfit(module, "its words must be rows of a matrix", words!.shape);
  }
  if (alpha !== undefined) return ternaryMatrix(module, words!, alpha, null);
  if (scales === undefined || biases === undefined) {
    throw new UnsupportedModelError(
      `Cannot read ${shown(module)}: words of MLX must have scales and biases, or row_alpha, ` +
        `beside them: ${REMEDY}`,
    );
  }
  const settings = settingsOf(module);
  checkAffine(module, words!, scales, biases, settings);
  if (settings.bits === 2) return ternaryMatrix(module, words!, scales, settings);
  return floatMatrix(module, words!, scales, settings);
}

/** Features of a row. */
function featuresOf(words: TensorInfo, bits: number): number {
  return words.shape.at(-1)! * 8 * WORD_BYTES / bits;
}

function checkAffine(
  module: string,
  words: TensorInfo,
  scales: TensorInfo,
  biases: TensorInfo,
  { bits, groupSize }: Settings,
): void {
  const isLinear = LINEAR.test(module);
  if (isLinear ? bits !== 2 : ![2, 4, 8].includes(bits)) {
    throw new UnsupportedModelError(
      `Cannot read ${shown(module)} of ${bits} bits: ` +
        (isLinear
          ? "linears of MLX are ternary only if they have 2"
          : "matrices of MLX must have 2, 4 or 8") +
        `: ${REMEDY}`,
    );
  }
  const groups = featuresOf(words, bits) / groupSize;
  const expected = [...words.shape.slice(0, -1), groups];
  for (const [name, { shape }] of Object.entries({ scales, biases })) {
    const isSame = shape.length === expected.length && shape.every((n, i) => n === expected[i]);
    if (isSame) continue;
    const rule = `by ${bits} bits and groups of ${groupSize} its ${name} must be ${
      shown(expected)
    }`;
    throw misfit(module, rule, shape);
  }
  if (scales.dtype !== biases.dtype) {
    throw misfit(module, `its biases must be ${scales.dtype} as its scales`, biases.dtype);
  }
}

function misfit(module: string, rule: string, value: unknown): CheckpointError {
  return new CheckpointError(
    `Cannot read ${shown(module)}: ${rule}: current value is ${shown(value)}, config.json is not ` +
      "that of this checkpoint, or the file is damaged",
  );
}

/** A type of 16 bits. */
function halfType(module: string, dtype: TensorInfo["dtype"]): "f16" | "bf16" {
  if (dtype === "F16") return "f16";
  if (dtype === "BF16") return "bf16";
  throw new UnsupportedModelError(
    `Cannot read ${shown(module)}: its factors must be F16 or BF16: current value is ${dtype}: ` +
      REMEDY,
  );
}

/** Where and as what a matrix is given. */
function infoOf(words: TensorInfo, dtype: TensorInfo["dtype"], k: number): TensorInfo {
  const shape = [...words.shape.slice(0, -1), k];
  const weights = shape.reduce((product, size) => product * size, 1);
  const byteLength = dtype === "F16" ? 2 * weights : bytesOf(layoutOf(dtype), weights)!;
  return { dtype, shape, byteOffset: words.byteOffset, byteLength };
}

/** @param affine Null where each row has one factor. */
function ternaryMatrix(
  module: string,
  words: TensorInfo,
  factors: TensorInfo,
  affine: Settings | null,
): MlxMatrix {
  const k = featuresOf(words, 2);
  const type = halfType(module, factors.dtype);
  const groupSize = affine?.groupSize ?? k;
  const dtype = type === "bf16" ? "Q2_0_BF16" : groupSize % 128 === 0 ? "PQ2_0" : "Q2_0";
  const { blockWeights, blockBytes } = layoutOf(dtype);
  if (groupSize % blockWeights !== 0) {
    throw new UnsupportedModelError(
      `Cannot read ${shown(module)}: groups of ternary weights must be of multiples of ` +
        `${blockWeights} features: current value is ${groupSize}: ${REMEDY}`,
    );
  }
  const info = infoOf(words, dtype, k);
  const [perRow, blocksPerRow] = [k / groupSize, k / blockWeights];
  const rows = info.byteLength / blockBytes / blocksPerRow;
  const factorCount = factors.shape.reduce((product, size) => product * size, 1);
  if (factorCount !== rows * perRow) {
    throw misfit(module, `its factors must be ${rows * perRow}`, factorCount);
  }
  return {
    info,
    rows,
    async readRows(read, first, count, out) {
      const part = (name: string, bytesPerRow: number) =>
        read(`${module}.${name}`, first * bytesPerRow, count * bytesPerRow);
      const codes = halvesOf(await part("weight", k / 4));
      const found = halvesOf(await part(affine ? "scales" : "row_alpha", 2 * perRow));
      if (affine) {
        checkTernary(
          found,
          halvesOf(await part("biases", 2 * perRow)),
          type,
          (at) => `${shown(module)}, row ${first + Math.floor(at / perRow)}, group ${at % perRow}`,
        );
      }
      interleave(codes, found, groupSize / blockWeights, halvesOf(out));
    },
  };
}

function halvesOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint16Array {
  return new Uint16Array(buffer, byteOffset, byteLength / 2);
}

/** Each block's factor before its codes, all in units of 16 bits. */
function interleave(
  codes: Uint16Array,
  factors: Uint16Array,
  blocksPerFactor: number,
  out: Uint16Array,
): void {
  const blocks = factors.length * blocksPerFactor;
  const size = codes.length / blocks;
  let [from, to] = [0, 0];
  for (let block = 0; block < blocks; block++) {
    out[to++] = factors[Math.floor(block / blocksPerFactor)];
    for (const end = from + size; from < end;) out[to++] = codes[from++];
  }
}

/** @throws {UnsupportedModelError} If a bias is not -scale: code 1 is no 0 then. */
function checkTernary(
  scales: Uint16Array,
  biases: Uint16Array,
  type: "f16" | "bf16",
  where: (at: number) => string,
): void {
  const at = scales.findIndex((scale, i) =>
    (scale ^ biases[i]) !== 0x8000 && ((scale | biases[i]) & 0x7fff) !== 0
  );
  if (at < 0) return;
  const [scale, bias] = [scales, biases].map((halves) => valuesOf(type)[halves[at]]);
  throw new UnsupportedModelError(
    `Cannot use ${where(at)}: 2 bits are ternary weights only if their bias is -scale: current ` +
      `values are scale ${scale}, bias ${bias}: get a model that was trained to be ternary`,
  );
}

function floatMatrix(
  module: string,
  words: TensorInfo,
  scales: TensorInfo,
  { bits, groupSize }: Settings,
): MlxMatrix {
  const k = featuresOf(words, bits);
  const type = halfType(module, scales.dtype);
  const info = infoOf(words, "F16", k);
  const perRow = k / groupSize;
  return {
    info,
    rows: info.byteLength / 2 / k,
    async readRows(read, first, count, out) {
      const part = (name: string, bytesPerRow: number) =>
        read(`${module}.${name}`, first * bytesPerRow, count * bytesPerRow);
      const codes = await part("weight", k * bits / 8);
      const [factors, offsets] = await Promise.all(
        ["scales", "biases"].map(async (name) => toFloat32(await part(name, 2 * perRow), type)),
      );
      const halves = new Float16Array(out.buffer, out.byteOffset, out.byteLength / 2);
      widen(codes, { bits, groupSize }, factors, offsets, halves);
      const bad = halves.findIndex((half) => !Number.isFinite(half));
      if (bad < 0) return;
      throw new CheckpointError(
        `Cannot use ${shown(module)}, row ${first + Math.floor(bad / k)}: its values must be ` +
          "finite in half precision: the file is damaged",
      );
    },
  };
}

/** w = scale * code + bias, of codes of 4 or 8 bits. */
function widen(
  codes: Uint8Array,
  { bits, groupSize }: Settings,
  scales: Float32Array,
  biases: Float32Array,
  out: Float16Array,
): void {
  for (let i = 0; i < out.length; i++) {
    const code = bits === 8 ? codes[i] : codes[i >> 1] >> 4 * (i & 1) & 15;
    const group = Math.floor(i / groupSize);
    out[i] = scales[group] * code + biases[group];
  }
}
