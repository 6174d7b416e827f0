/** Instruction sets for which kernels are generated, and the reference that defines their results. */
export const ISAS = [
  "avx512",
  "avxvnni",
  "avx2",
  "neon-i8mm",
  "neon-dotprod",
  "neon",
  "portable",
] as const;
/** An instruction set. */
export type Isa = (typeof ISAS)[number];

/** What a person may ask for: `neon` means the best NEON kernel that the CPU has. */
export const KERNEL_CHOICES = [
  "auto",
  "avx512",
  "avxvnni",
  "avx2",
  "neon",
  "portable",
  "reference",
] as const;
/** An instruction set, the reference, or what the CPU does best. */
export type KernelChoice = (typeof KERNEL_CHOICES)[number];
