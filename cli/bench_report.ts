/** What `bench` prints for a person. */
import type { BatchReport, BenchReport, Rate, StepProfile } from "../runtime/reports.ts";
import { bytes, type Cell, digits, fields, table } from "./format.ts";
import type { Output } from "./io.ts";
import { plural } from "./statistics.ts";

export function printReport(report: BenchReport, repeat: number, stdout: Output): void {
  const { shape, threads, cpu, profile, batches } = report;
  stdout.write(`${shape} on ${cpu}, ${plural(threads, "thread")}, ${plural(repeat, "run")}\n\n`);
  printRates(report, stdout);
  printKernels(report, stdout);
  if (batches) printBatches(batches, stdout);
  if (profile) {
    printProfile("Prefill", profile.prefill, stdout);
    printProfile("Decode", profile.decode, stdout);
  }
}

function printRates({ prefill, decode, memory }: BenchReport, stdout: Output): void {
  const rows = [
    [`prefill ${prefill.promptTokens}`, ...rateCells(prefill)],
    [`decode ${decode.genTokens}`, ...rateCells(decode)],
  ];
  stdout.write(table(stdout, ["test", "tokens/s", "+/-"], rows));
  const roofline = `${percent(memory.rooflineFraction)} of the peak`;
  stdout.write(`\n${
    fields(stdout, [
      ["ternary work", `${giga(prefill.ternaryMacsPerSecondPerThread)} G MAC/s a thread`],
      ["weights in memory", bytes(memory.weightBytes)],
      ["weights read a token", bytes(decode.weightBytesPerToken)],
      ["decode reads", `${bytes(decode.bytesPerSecond)}/s, ${roofline}`],
      ["memory's peak", `${bytes(memory.peakReadBytesPerSecond)}/s`],
      ["most memory used", bytes(memory.peakRssBytes)],
    ])
  }`);
}

function printKernels({ kernels }: BenchReport, stdout: Output): void {
  if (kernels.length === 0) return;
  const rows = kernels.map((kernel) => [
    kernel.op,
    kernel.n,
    kernel.k,
    kernel.scheme,
    kernel.isa,
    digits(kernel.bitsPerWeight),
  ]);
  stdout.write(`\n${table(stdout, ["op", "n", "k", "scheme", "isa", "bits a weight"], rows)}`);
}

function printBatches(batches: readonly BatchReport[], stdout: Output): void {
  const headings = ["sequences", "tokens/s", "step ms", "memory ms", "arithmetic ms", "ratio"];
  const rows = batches.map((batch) => [
    batch.sequences,
    digits(batch.tokensPerSecond),
    milliseconds(batch.stepSeconds),
    milliseconds(batch.memorySeconds),
    batch.arithmeticSeconds === null ? "-" : milliseconds(batch.arithmeticSeconds),
    digits(batch.ratio),
  ]);
  stdout.write(`\n${table(stdout, headings, rows)}`);
}

function printProfile(name: string, profile: StepProfile, stdout: Output): void {
  const headings = ["phase", "ms a step", "waiting", "share", "bytes a step", "GB/s", "G MAC/s"];
  const rows = profile.phases.map((phase): Cell[] => [
    phase.phase,
    milliseconds(phase.seconds / profile.steps),
    milliseconds(phase.waitSeconds / profile.steps),
    percent(phase.share),
    bytes(Math.round(phase.bytes / profile.steps)),
    giga(phase.bytesPerSecond),
    giga(phase.macsPerSecond),
  ]);
  const title = `${name}, ${plural(profile.steps, "step")}, ${plural(profile.tokens, "token")}`;
  const rest = `${percent(profile.restShare)} outside of linears, attention and head`;
  stdout.write(`\n${title}: ${rest}, of which ${percent(profile.waitShare)} waiting\n`);
  stdout.write(table(stdout, headings, rows));
}

function rateCells({ tokensPerSecond, stdev }: Rate): string[] {
  return [digits(tokensPerSecond), digits(stdev)];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function milliseconds(seconds: number): string {
  return digits(seconds * 1000);
}

/** Billions, as GB/s and G MAC/s are. */
function giga(amount: number): string {
  return digits(amount / 1e9);
}
