/** The machine that the tests run on: its compiler, and which kernels its CPU has. */
import type { Isa } from "../codegen/isa.ts";
import type { Groups } from "../codegen/model_spec.ts";
import { kernelsFor, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { detectCpuWithZig, missingFeatures, supportedIsas } from "../kernels/cpu.ts";
import { ensureZig } from "../kernels/toolchain.ts";

export const ZIG = await ensureZig();
export const CPU = await detectCpuWithZig(ZIG.path);

/** Instruction sets of this CPU, best first. */
export const NATIVE_ISAS: readonly Isa[] = supportedIsas(CPU);

/** Why kernels can't run here, or null if they can. */
export function lackingFor(isa: Isa): string | null {
  const missing = missingFeatures(CPU, isa);
  return missing.length === 0 ? null : `this CPU lacks ${missing.join(", ")}`;
}

/** Kernels of a model's groups that are made for CPUs of this architecture, whether or not this one has all they need. */
export function kernelsOfArch(groups?: Groups): readonly TernaryKernel[] {
  return kernelsFor(groups).filter(({ isa }) =>
    isa === "portable" || isa.startsWith("neon") === (CPU.arch === "aarch64")
  );
}

/** The same without groups. */
export const KERNELS_OF_ARCH: readonly TernaryKernel[] = kernelsOfArch();
