import type { Isa } from "../isa.ts";
import type { Groups } from "../model_spec.ts";
import type { TernaryLayout } from "../layouts/layout.ts";
import { AVX2, AVX512, AVX_VNNI, NEON, NEON_DOTPROD, NEON_I8MM, PORTABLE } from "./dialects.ts";
import { lookup, LOOKUP_10, LOOKUP_48, LOOKUP_9 } from "./lookup.ts";
import { multiply } from "./multiply.ts";
import type { Scheme } from "./scheme.ts";
import { shuffle, TBL, VPSHUFB } from "./shuffle.ts";

/**
 * One ternary linear kernel: an instruction set and a scheme. A row of the registry gives it its
 * build, its differential tests, its proof on the user's machine, its benchmark and its place in
 * the choice.
 */
export interface TernaryKernel {
  /** What it is generated for. */
  isa: Isa;
  /** How it multiplies. */
  scheme: Scheme;
}

/**
 * Of each instruction set, the first row is the default where nothing else is known.
 *
 * AVX-512, G weights/s times tokens of one core, 2,560 x 2,560; medians of interleaved runs.
 *
 * | | multiply | lookup9 | lookup9-prefetch | lookup48 | lookup10 |
 * |---|---|---|---|---|---|
 * | Emerald Rapids, cached, 1 token | 169 | 126 | 127 | | |
 * | 2 tokens | 228 | 149 | 153 | | |
 * | 8 tokens | 298 | 163 | 163 | | |
 * | from memory, 1 token (peak 11.8 GB/s) | 39.0 (83 %) | 29.2 (55 %) | 41.9 (79 %) | | |
 * | Zen 4, cached, 1 token | 194 | 217 | | 182 | 118 |
 * | 4 tokens | 226 | 270 | | 244 | 195 |
 * | 64 tokens | 227 | 262 | | 237 | 191 |
 * | from memory, 1 token, GB/s (peak 31 to 32) | | 30.4 | | 29.6 | 21.9 |
 *
 * vpermw takes 1.8 cycles on Intel, so lookups win there only by their fewer bytes; on Zen 4 they
 * win everywhere. lookup48 reads as many bytes a second as lookup9, and fewer of them; lookup10
 * waits for its multiplications.
 */
export const TERNARY_KERNELS: readonly TernaryKernel[] = [
  { isa: "avx512", scheme: multiply(AVX512) },
  ...[LOOKUP_48, LOOKUP_9, LOOKUP_10].flatMap((code): TernaryKernel[] => [
    { isa: "avx512", scheme: lookup(code, [4, 2, 1], false) },
    { isa: "avx512", scheme: lookup(code, [4, 2, 1], true) },
  ]),
  { isa: "avxvnni", scheme: multiply(AVX_VNNI) },
  { isa: "avx2", scheme: multiply(AVX2) },
  { isa: "avx2", scheme: shuffle(VPSHUFB) },
  { isa: "neon-i8mm", scheme: multiply(NEON_I8MM) },
  { isa: "neon-dotprod", scheme: multiply(NEON_DOTPROD) },
  { isa: "neon", scheme: multiply(NEON) },
  { isa: "neon", scheme: shuffle(TBL) },
  { isa: "portable", scheme: multiply(PORTABLE) },
];

const grouped = new Map<string, readonly TernaryKernel[]>();

/**
 * The rows of the registry for a model: all of them, or with groups those whose scheme can do them, which
 * is multiplication. Words of lookups hold 9, 10, 24 or 48 features: with each group of 128 filled up to
 * whole words, lookup9, lookup48 and shuffle24 take 1.88 bits a weight where multiplication takes 2, 6 %
 * less with the factors, and lookup10 waits for its own multiplications.
 *
 * Of one Zen 4 core, 4,096 x 4,096, groups of 128 with f16 factors (2.125 bits a weight); the best tenth
 * of interleaved runs (medians are 2 to 5 % lower) and, of decode, bytes beside a peak of 32 to 33 GB/s:
 *
 * | | decode from memory | | 64 tokens, G MAC/s |
 * |---|---|---|---|
 * | avx512-multiply, no groups | 98 G weights/s | 74 % | 229 |
 * | groups | 110 | 88 % | 212 |
 * | avx512-lookup48, no groups | 147 | 93 % | 247 |
 * | avx2-multiply, no groups | 105 | 82 % | 151 |
 * | groups | 93 | 77 % | 143 |
 *
 * f32 factors take 2.25 bits.
 *
 * @returns The same objects for equal groups.
 */
export function kernelsFor(groups?: Groups): readonly TernaryKernel[] {
  if (groups === undefined) return TERNARY_KERNELS;
  const { size, weightScales, scaleType } = groups;
  const key = JSON.stringify([size, weightScales, scaleType]);
  const rows = grouped.get(key) ?? TERNARY_KERNELS.flatMap(({ isa, scheme }) => {
    const own = scheme.withGroups?.(groups);
    return own === undefined ? [] : [{ isa, scheme: own }];
  });
  grouped.set(key, rows);
  return rows;
}

/** A kernel's name in reports and file names: `avx512-lookup`. */
export function kernelName({ isa, scheme }: TernaryKernel): string {
  return `${isa}-${scheme.name}`;
}

/**
 * The kernel for a CPU on which nothing was measured.
 *
 * @param cpuVendor As CPUID or /proc/cpuinfo spells it, such as `AuthenticAMD`; null if unknown.
 */
export function defaultKernel(
  isa: Isa,
  cpuVendor: string | null = null,
  groups?: Groups,
): TernaryKernel {
  const kernels = kernelsFor(groups).filter((kernel) => kernel.isa === isa);
  // Every AMD CPU with AVX-512 is a Zen 4 or later.
  const name = isa === "avx512" && cpuVendor === "AuthenticAMD" ? "lookup48" : "multiply";
  return kernels.find((kernel) => kernel.scheme.name === name) ?? kernels[0];
}

/** The kernel of an instruction set that every CPU with it runs well. */
export function ternaryKernel(isa: Isa, groups?: Groups): TernaryKernel {
  return defaultKernel(isa, null, groups);
}

/** Layouts in which packed files exist. */
export const LAYOUTS: readonly TernaryLayout[] = [
  ...new Set(TERNARY_KERNELS.map((kernel) => kernel.scheme.layout)),
];
