/**
 * `deno task instructions`: how many instructions the ternary kernels execute, counted by qemu. For
 * instruction sets of which no CPU is at hand these are all the figures there are; they are counts,
 * not times.
 *
 * A program runs one linear of ROWS rows, then one of twice as many: the difference leaves out what
 * both have in common, such as reading files and making tables.
 */
import { Buffer } from "node:buffer";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import type { Isa } from "../codegen/isa.ts";
import { blocksOf, packMatrix, paddedRows } from "../codegen/layouts/layout.ts";
import { randomOf } from "../codegen/random.ts";
import { linearSymbol, type Shape } from "../codegen/ternary_linear/scheme.ts";
import { kernelName, TERNARY_KERNELS, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { compileExecutable, type Target } from "../kernels/compile.ts";
import { ensureZig, type Zig } from "../kernels/toolchain.ts";
import { linearsSources } from "../kernels/timing.ts";
import filesSource from "../tests/emulated/files.zig" with { type: "text" };
import linearsSource from "../tests/emulated/linears.zig" with { type: "text" };

/** A block of rows, and whole slices of the layouts that are counted: nothing is padding. */
const ROWS = 32;
const FEATURES = 960;
const UNIT = 64;

/** Emulators by architecture, and what of the instruction sets they lack. */
const EMULATORS: Record<Target["arch"], string> = {
  aarch64: "qemu-aarch64",
  x86_64: "qemu-x86_64",
};
const NOT_EMULATED: Partial<Record<Isa, string>> = {
  avx512: "qemu does not emulate AVX-512",
  avxvnni: "qemu does not emulate AVX-VNNI",
};

/** Instructions for 64 weights times the tokens that share them. */
export interface InstructionCount {
  kernel: string;
  tokens: number;
  per64Products: number;
}

/** A kernel that can't be counted here, and why. */
export interface Uncounted {
  kernel: string;
  reason: string;
}

/** Counts a kernel's instructions for batches of some numbers of tokens. */
export async function countKernel(
  zig: Zig,
  kernel: TernaryKernel,
  tokens: readonly number[],
): Promise<InstructionCount[] | Uncounted> {
  const name = kernelName(kernel);
  const reason = whyNot(kernel.isa);
  if (reason !== null) return { kernel: name, reason };
  const shapes = [{ n: ROWS, k: FEATURES }, { n: 2 * ROWS, k: FEATURES }];
  const program = await compileProgram(zig, kernel, shapes);
  return tokens.map((count) => {
    const [once, twice] = shapes.map((shape, index) =>
      instructionsOf(program, kernel, encodeCase(kernel, shape, index, count))
    );
    return {
      kernel: name,
      tokens: count,
      per64Products: (twice - once) * UNIT / (ROWS * FEATURES * count),
    };
  });
}

function archOf(isa: Isa): Target["arch"] {
  return isa.startsWith("neon") ? "aarch64" : "x86_64";
}

function whyNot(isa: Isa): string | null {
  const emulator = EMULATORS[archOf(isa)];
  if (NOT_EMULATED[isa] !== undefined) return NOT_EMULATED[isa];
  if (spawnSync(emulator, ["--version"]).status === 0) return null;
  return `there is no ${emulator} on PATH (Debian: apt-get install qemu-user)`;
}

async function compileProgram(
  zig: Zig,
  kernel: TernaryKernel,
  shapes: readonly Shape[],
): Promise<string> {
  const names = shapes.map((shape) => `kernels.trilith_${linearSymbol(shape)},`);
  const table = `const kernels = @import("kernels.zig");\npub const linears = .{ ${
    names.join(" ")
  } };\n`;
  const sources = linearsSources(kernel, shapes).set("files.zig", filesSource)
    .set("linears.zig", linearsSource).set("linears_table.zig", table);
  const target: Target = { arch: archOf(kernel.isa), os: "linux" };
  const request = { sources, root: "linears.zig", isa: kernel.isa, target };
  return (await compileExecutable(zig, request)).path;
}

/** A case as `tests/emulated/linears.zig` reads it. */
function encodeCase(kernel: TernaryKernel, { n, k }: Shape, index: number, tokens: number): Buffer {
  const random = randomOf(n + tokens);
  const codes = new Uint8Array(n * k).map(() => Math.floor(random() * 3));
  const x = new Uint8Array(tokens * k).map(() => Math.floor(random() * 256));
  const weights = packMatrix(kernel.scheme.layout, codes, n, k);
  const words = [index, tokens, blocksOf(n), weights.length, x.length, tokens * paddedRows(n)];
  const parts = [new Uint8Array(Int32Array.from(words).buffer), weights, x];
  return Buffer.concat(parts.flatMap((part) => [part, new Uint8Array(-part.length & 63)]));
}

function instructionsOf(program: string, { isa }: TernaryKernel, bytes: Buffer): number {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-instructions-"));
  try {
    const [input, log] = ["case", "log"].map((name) => path.join(folder, name));
    fs.writeFileSync(input, bytes);
    const emulator = EMULATORS[archOf(isa)];
    const flags = ["-cpu", "max", ...oneByOne(emulator), "-d", "exec,nochain", "-D", log];
    execFileSync(emulator, [...flags, program, input, path.join(folder, "sums")]);
    return countLines(log);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** Makes each instruction a block of its own, so that the log has a line for each that is executed. */
function oneByOne(emulator: string): string[] {
  const help = spawnSync(emulator, ["-help"], { encoding: "utf8" }).stdout;
  return [help.includes("-one-insn-per-tb") ? "-one-insn-per-tb" : "-singlestep"];
}

/** Lines of a file that may be larger than a string can be. */
export function countLines(file: string): number {
  const descriptor = fs.openSync(file, "r");
  const chunk = new Uint8Array(1 << 20);
  let lines = 0;
  try {
    for (let read; (read = fs.readSync(descriptor, chunk)) > 0;) {
      for (let i = 0; i < read; i++) if (chunk[i] === 10) lines++;
    }
  } finally {
    fs.closeSync(descriptor);
  }
  return lines;
}

/** Decode, small batches, and enough tokens for tiles of every size. */
const TOKENS = [1, 2, 4, 8, 16, 96];

async function main(): Promise<void> {
  const zig = await ensureZig();
  process.stdout.write(`| kernel | ${TOKENS.map((m) => `${m} tokens`).join(" | ")} |\n`);
  process.stdout.write(`|---|${TOKENS.map(() => "---").join("|")}|\n`);
  for (const kernel of TERNARY_KERNELS) {
    const counts = await countKernel(zig, kernel, TOKENS);
    const cells = "reason" in counts
      ? [`not counted: ${counts.reason}`]
      : counts.map((count) => count.per64Products.toFixed(2));
    process.stdout.write(`| ${kernelName(kernel)} | ${cells.join(" | ")} |\n`);
  }
}

if (import.meta.main) await main();
