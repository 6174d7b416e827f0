/**
 * What llvm-mca says of a kernel's innermost loop, where it is installed and knows this very CPU: its
 * model of another one would mislead (Intel's vpermw takes twice the cycles of Zen 4's).
 */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { isGranted } from "./permissions.ts";
import { findOnPath, RunError, runProgram } from "./process.ts";

/** llvm-mca on PATH, if it may be run. */
export function findMca(): string | null {
  return findOnPath("llvm-mca").find((command) => isGranted({ name: "run", command })) ?? null;
}

/** It takes milliseconds; this only ends one that hangs. */
const TIMEOUT_MS = 20_000;

/** Multiply-adds that an instruction does at most. */
const PRODUCTS: readonly (readonly [pattern: RegExp, macs: number])[] = [
  // A lookup names three weights of 32 rows.
  [/^vpermw\s+zmm/, 96],
  [/^vpdpbusd\s+zmm|^vpmaddubsw\s+zmm/, 64],
  [/^vpdpbusd\s+ymm|^vpmaddubsw\s+ymm|^smmla\s/, 32],
  [/^sdot\s+v/, 16],
  [/^smlal2?\s+v/, 8],
];

/** Instructions of the innermost loops of an assembly text, each from its label to its jump. */
export function innermostLoops(assembly: string): string[][] {
  const lines = assembly.split("\n");
  const labels = new Map<string, number>();
  const loops: [from: number, to: number][] = [];
  lines.forEach((line, at) => {
    const label = /^(\.?L\w+):/.exec(line)?.[1];
    if (label !== undefined) labels.set(label, at);
    const from = labels.get(/^\s+(?:j\w+|b\.\w+|cbn?z\s+\w+,)\s+(\.?L\w+)/.exec(line)?.[1] ?? "");
    if (from !== undefined) loops.push([from, at]);
  });
  const isInner = ([from, to]: [number, number]) =>
    !loops.some(([a, b]) => from <= a && b <= to && (a !== from || b !== to));
  return loops.filter(isInner).map(([from, to]) =>
    lines.slice(from + 1, to + 1).map((line) => line.trim()).filter((line) => /^[a-z]/.test(line))
  );
}

/** Multiply-adds of one turn of a loop. */
export function macsOf(loop: readonly string[]): number {
  return loop.reduce(
    (sum, line) => sum + (PRODUCTS.find(([pattern]) => pattern.test(line))?.[1] ?? 0),
    0,
  );
}

/**
 * Multiply-adds a cycle of the loop that does most of them: what a kernel could reach if all else
 * were free.
 *
 * @param mca Path of llvm-mca.
 * @param assembly Path of the kernel's assembly, in Intel's syntax on x86; the loop is written beside
 *   it for a moment.
 * @returns Null if llvm-mca does not know this CPU, or there is no loop to look at.
 */
export async function macsPerCycle(
  mca: string,
  assembly: string,
  signal?: AbortSignal,
): Promise<number | null> {
  const loops = innermostLoops(fs.readFileSync(assembly, "utf8"));
  const [loop] = loops.sort((a, b) => macsOf(b) - macsOf(a));
  if (loop === undefined || macsOf(loop) === 0) return null;
  const file = path.join(path.dirname(assembly), `loop-${process.pid}.s`);
  const syntax = process.arch === "x64" ? ".intel_syntax noprefix\n" : "";
  try {
    // Without its jump: the label that it names is not here.
    fs.writeFileSync(file, `${syntax}${loop.slice(0, -1).join("\n")}\n`);
    const args = ["-mcpu=native", "-iterations=100", file];
    const { code, stdout } = await runProgram(mca, args, { signal, timeoutMs: TIMEOUT_MS });
    const cycles = Number(/^Block RThroughput: +([\d.]+)/m.exec(stdout)?.[1]);
    return code === 0 && cycles > 0 ? macsOf(loop) / cycles : null;
  } catch (error) {
    if (!(error instanceof RunError)) throw error;
    return null;
  } finally {
    fs.rmSync(file, { force: true });
  }
}
