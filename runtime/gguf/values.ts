/** Values of a GGUF file's keys. */

export const VALUE_TYPES = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const;
export type ValueType = typeof VALUE_TYPES[number];
export type ScalarType = Exclude<ValueType, "string" | "array">;

/** Bytes of a value of fixed size. */
export const SCALAR_BYTES: Readonly<Record<ScalarType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** A list, whose elements are only made when asked for: a vocabulary has hundreds of thousands. */
export interface GgufArray {
  readonly type: Exclude<ValueType, "array">;
  readonly length: number;
  /** @throws {CheckpointError} If a string is not UTF-8. */
  values(): GgufScalar[];
}

/** 64-bit numbers that no double holds stay bigints. */
export type GgufScalar = number | bigint | boolean | string;
export type GgufValue = GgufScalar | GgufArray;
export type Metadata = ReadonlyMap<string, GgufValue>;

export function isArray(value: GgufValue | undefined): value is GgufArray {
  return typeof value === "object";
}
