/**
 * Types of GGUF tensors. Forks use the same numbers for different types, so a number alone is not
 * believed: the bytes that a tensor takes up must be those of its type.
 *
 * Sources: the gguf package's constants.py; headers of microsoft/BitNet's, PrismML's and
 * ikawrakow's forks of llama.cpp.
 */
import type { TensorInfo } from "../tensors.ts";

export type Dtype = TensorInfo["dtype"];

/** Weights that lie together, and their bytes; `extraBytes` stand once after a tensor. */
export interface TypeLayout {
  readonly dtype: Dtype;
  readonly blockWeights: number;
  readonly blockBytes: number;
  readonly extraBytes: number;
}

function type(
  dtype: Dtype,
  blockWeights: number,
  blockBytes: number,
  extraBytes = 0,
): TypeLayout {
  return { dtype, blockWeights, blockBytes, extraBytes };
}

/** Mainline's, and PrismML's of the same number: the one that fits the tensor's bytes. */
const Q2_0 = type("Q2_0", 64, 18);
const PQ2_0 = type("PQ2_0", 128, 34);

/** Types by their number in files; where there are several, the tensor's bytes decide. */
const TYPES: ReadonlyMap<number, readonly TypeLayout[]> = new Map([
  [0, [type("F32", 1, 4)]],
  [1, [type("F16", 1, 2)]],
  [2, [type("Q4_0", 32, 18)]],
  [3, [type("Q4_1", 32, 20)]],
  [6, [type("Q5_0", 32, 22)]],
  [7, [type("Q5_1", 32, 24)]],
  [8, [type("Q8_0", 32, 34)]],
  [10, [type("Q2_K", 256, 84)]],
  [11, [type("Q3_K", 256, 110)]],
  [12, [type("Q4_K", 256, 144)]],
  [13, [type("Q5_K", 256, 176)]],
  [14, [type("Q6_K", 256, 210)]],
  [20, [type("IQ4_NL", 32, 18)]],
  [24, [type("I8", 1, 1)]],
  [25, [type("I16", 1, 2)]],
  [26, [type("I32", 1, 4)]],
  [27, [type("I64", 1, 8)]],
  [28, [type("F64", 1, 8)]],
  [30, [type("BF16", 1, 2)]],
  [34, [type("TQ1_0", 256, 54)]],
  [35, [type("TQ2_0", 256, 66)]],
  // Four weights a byte, then one factor of the tensor and padding.
  [36, [type("I2_S", 4, 1, 32)]],
  [42, [Q2_0, PQ2_0]],
  [142, [PQ2_0]],
  [143, [type("PTQ1_0", 128, 28)]],
]);

const REQUANTISE = "convert the model from its safetensors files instead";

/** Types that other programs write and this version does not read, and what to do instead. */
const OTHERS: ReadonlyMap<number, string> = new Map([
  [9, "Q8_1"],
  [15, "Q8_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [29, "IQ1_M"],
  [31, "Q4_0_4_4"],
  [32, "Q4_0_4_8"],
  [33, "Q4_0_8_8"],
  [37, "I8_S"],
  [38, "TL1"],
  [39, "TL2 or MXFP4"],
  [40, "NVFP4 or I2_V"],
  [41, "Q1_0"],
  [43, "STQ1_0"],
  [134, "IQ1_BN"],
  [135, "IQ2_BN"],
  [335, "IQ2_BN_R4"],
]);

/** Layouts that a type's number may stand for; empty if it is none that is read. */
export function layoutsOf(typeId: number): readonly TypeLayout[] {
  return TYPES.get(typeId) ?? [];
}

/** Why a type is not read, and what its owner can do. */
export function refusalOf(typeId: number): string {
  const name = OTHERS.get(typeId) ?? `number ${typeId}, which is not known`;
  if (typeId === 38 || typeId === 39) {
    return `its type is ${name}, whose bytes fit one build of one program only: get the model's ` +
      `I2_S or TQ2_0 file, or ${REQUANTISE}`;
  }
  if (typeId === 134 || typeId === 135 || typeId === 335) {
    return `its type is ${name} of ik_llama.cpp: get the I2_S file that it was made from`;
  }
  return `its type is ${name}: this version reads ${
    [...new Set([...TYPES.values()].flat().map(({ dtype }) => dtype))].join(", ")
  }: get a file of one of these, or ${REQUANTISE}`;
}

/** Bytes of a tensor of `weights` weights, or null where they are no whole blocks or too many. */
export function bytesOf(layout: TypeLayout, weights: number): number | null {
  if (weights % layout.blockWeights !== 0) return null;
  const bytes = weights / layout.blockWeights * layout.blockBytes + layout.extraBytes;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

const BLOCK_LAYOUTS: ReadonlyMap<Dtype, TypeLayout> = new Map(
  [...TYPES.values()].flat().concat(type("Q2_0_BF16", 64, 18))
    .map((layout) => [layout.dtype, layout]),
);

/** How the blocks of a type lie. Every type of a GGUF file has one, and every ternary type. */
export function layoutOf(dtype: Dtype): TypeLayout {
  const layout = BLOCK_LAYOUTS.get(dtype);
  if (layout === undefined) throw new RangeError(`Type ${dtype} is none of GGUF's`);
  return layout;
}
