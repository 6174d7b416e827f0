/**
 * Writes made models in the forms in which MLX's users publish ternary ones, and their twins: the same
 * weights as Hugging Face's folders have them.
 *
 * Of Maple's form there is no public writer: its definition is the description of
 * deepgrove/maple-preview-2bit-mlx.
 */
import type { JsonObject } from "../runtime/json.ts";
import { type MadeModel, madeValues, TOKENIZER } from "./made_models.ts";
import { bf16Bytes, safetensorsFile, type TestTensor } from "./safetensors_file.ts";

/** Files of a folder by name. */
export type Files = Record<string, string | Uint8Array>;

export interface MlxTwins {
  mlx: Files;
  twin: Files;
}

type Tensors = Record<string, TestTensor>;

/** Features that share a scale and a bias in matrices of 4 bits. */
const FLOAT_GROUP = 64;

/** Codes of some bits in words, the first in the lowest bits. */
export function words(codes: ArrayLike<number>, bits: number): Uint8Array<ArrayBuffer> {
  const perWord = 32 / bits;
  const out = new Uint32Array(codes.length / perWord);
  for (let i = 0; i < codes.length; i++) {
    out[Math.floor(i / perWord)] |= codes[i] << bits * (i % perWord);
  }
  return new Uint8Array(out.buffer);
}

function halfBytes(dtype: "F16" | "BF16", values: readonly number[]): Uint8Array<ArrayBuffer> {
  if (dtype === "BF16") return bf16Bytes(values);
  return new Uint8Array(Float16Array.from(values).buffer);
}

/** The largest magnitudes of so many neighbours. */
function magnitudes(values: Float32Array, count: number): number[] {
  return Array.from(
    { length: values.length / count },
    (_, i) => Math.max(...values.subarray(i * count, (i + 1) * count).map(Math.abs)),
  );
}

/** Ternary weights: with scales and biases of groups, or with a factor a row. */
export function ternaryTensors(
  path: string,
  values: Float32Array,
  { shape, dtype, group }: { shape: number[]; dtype: "F16" | "BF16"; group: number | null },
): Tensors {
  const k = shape.at(-1)!;
  const lead = shape.slice(0, -1);
  const factors = magnitudes(values, group ?? k);
  const codes = Array.from(values, (value) => Math.sign(value) + 1);
  const weight = { dtype: "U32", shape: [...lead, k / 16], bytes: words(codes, 2) };
  const tensor = (own: number[], of: readonly number[]): TestTensor => ({
    dtype,
    shape: own,
    bytes: halfBytes(dtype, of),
  });
  if (group === null) {
    return { [`${path}.weight`]: weight, [`${path}.row_alpha`]: tensor(lead, factors) };
  }
  const groups = [...lead, k / group];
  return {
    [`${path}.weight`]: weight,
    [`${path}.scales`]: tensor(groups, factors),
    [`${path}.biases`]: tensor(groups, factors.map((factor) => -factor)),
  };
}

/** A matrix of 4 bits, and what it says in half precision. */
function fourBits(path: string, values: Float32Array, [n, k]: readonly number[]) {
  const groups = Array.from({ length: values.length / FLOAT_GROUP }, (_, i) => {
    // Such steps and offsets as bfloat16 has.
    return { scale: (1 + i % 8) / 64, bias: -(i % 16) / 16 };
  });
  const codes = Array.from(values, (value, i) => {
    const { scale, bias } = groups[Math.floor(i / FLOAT_GROUP)];
    return Math.min(15, Math.max(0, Math.round((value - bias) / scale)));
  });
  const shape = [n, k / FLOAT_GROUP];
  const bytes = (of: "scale" | "bias") => bf16Bytes(groups.map((group) => group[of]));
  const meant = codes.map((code, i) => {
    const { scale, bias } = groups[Math.floor(i / FLOAT_GROUP)];
    return scale * code + bias;
  });
  return {
    mlx: {
      [`${path}.weight`]: { dtype: "U32", shape: [n, k / 8], bytes: words(codes, 4) },
      [`${path}.scales`]: { dtype: "BF16", shape, bytes: bytes("scale") },
      [`${path}.biases`]: { dtype: "BF16", shape, bytes: bytes("bias") },
    },
    twin: { dtype: "F16", shape: [n, k], bytes: halfBytes("F16", meant) },
  };
}

/** Tensors of both forms. */
export function mlxTensors(made: MadeModel): { mlx: Tensors; twin: Tensors } {
  const [mlx, twin]: Tensors[] = [{}, {}];
  for (const [name, tensor] of Object.entries(made.tensors)) {
    const { shape, kind } = tensor;
    const values = madeValues(name, tensor);
    const own = published(name);
    const path = own.replace(/\.weight$/, "");
    const bytes = halfBytes(made.dtype, [...values]);
    const plain = { dtype: made.dtype, shape, bytes };
    twin[name] = plain;
    if (kind === "embedding") {
      const both = fourBits(path, values, shape);
      Object.assign(mlx, both.mlx);
      twin[name] = both.twin;
    } else if (/^(group|row)/.test(kind)) {
      const group = kind === "row" ? null : Number(kind.slice("group ".length));
      Object.assign(mlx, ternaryTensors(path, values, { shape, dtype: made.dtype, group }));
    } else mlx[own] = plain;
  }
  return { mlx, twin };
}

/** Names of Maple's tensors in MLX's form; others keep theirs. */
function published(name: string): string {
  return name.replace(".mlp.experts.", ".mlp.switch_mlp.");
}

/** What config.json says of the ends of models that have them in 4 bits, and of all else. */
export function mlxConfig({ config, tensors }: MadeModel): JsonObject {
  const own = Object.entries(tensors).filter(([, { kind }]) => kind === "embedding")
    .map(([name]) => [name.replace(/\.weight$/, ""), { group_size: FLOAT_GROUP, bits: 4 }]);
  const group = Object.values(tensors).map(({ kind }) => /^group (\d+)/.exec(kind)?.[1])
    .find((size) => size !== undefined);
  const quantization = { group_size: Number(group ?? 64), bits: 2, ...Object.fromEntries(own) };
  return { ...config, quantization, quantization_config: quantization };
}

const twins = new Map<MadeModel, MlxTwins>();

/** A folder as MLX has it, and one of the same weights as Hugging Face has it. Made once a model. */
export function mlxTwins(made: MadeModel): MlxTwins {
  const found = twins.get(made) ?? twinsOf(made);
  twins.set(made, found);
  return found;
}

function twinsOf(made: MadeModel): MlxTwins {
  const { mlx, twin } = mlxTensors(made);
  const tokenizer = { "tokenizer.json": JSON.stringify(TOKENIZER) };
  return {
    mlx: {
      ...tokenizer,
      "config.json": JSON.stringify(mlxConfig(made)),
      "model.safetensors": safetensorsFile(mlx),
    },
    twin: {
      ...tokenizer,
      "config.json": JSON.stringify(made.config),
      "model.safetensors": safetensorsFile(twin),
    },
  };
}
