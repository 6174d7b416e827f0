/** Half precision and bfloat16 to float32, exactly: every value of both is a float32. */
import { halfToFloat } from "../codegen/dense/reference.ts";
import type { FloatType } from "../codegen/model_spec.ts";

/** Float32 values of little-endian elements. `bytes` must start at a multiple of its element. */
export function toFloat32(bytes: Uint8Array, type: FloatType): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (type === "f32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const halves = new Uint16Array(buffer, byteOffset, byteLength / 2);
  if (type === "bf16") return fromBfloat16(halves);
  return Float32Array.from(halves, halfToFloat);
}

function fromBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = halves[i] << 16;
  return new Float32Array(words.buffer);
}

const valueTables: Partial<Record<"f16" | "bf16", Float32Array>> = {};

/** Value of each of the 65,536 bit patterns of a 16-bit type. Made once; not to be written. */
export function valuesOf(type: "f16" | "bf16"): Float32Array {
  const patterns = () => Uint16Array.from({ length: 65536 }, (_, i) => i);
  return valueTables[type] ??= toFloat32(new Uint8Array(patterns().buffer), type);
}
