/** What `bench` prints for a person. */
import type {
  BatchReport,
  BenchReport,
  CostReport,
  EnergyPhase,
  EnergyReport,
  Rate,
  StepProfile,
} from "../runtime/reports.ts";
import { bytes, type Cell, digits, fields, table } from "./format.ts";
import type { Output } from "./io.ts";
import { plural } from "./statistics.ts";

export function printReport(report: BenchReport, repeat: number, stdout: Output): void {
  const { shape, threads, cpu, head, profile, batches, energy, cost } = report;
  stdout.write(
    `${shape} on ${cpu}, ${plural(threads, "thread")}, ${plural(repeat, "run")}, ${head} head\n\n`,
  );
  printRates(report, stdout);
  printFromStart(report, stdout);
  printKernels(report, stdout);
  if (batches) printBatches(batches, stdout);
  if (energy) printEnergy(energy, stdout);
  if (cost) printCost(cost, stdout);
  if (profile) {
    printProfile("Prefill", profile.prefill, stdout);
    printProfile("Decode", profile.decode, stdout);
  }
}

function printRates({ prefill, decode, memory, kvType }: BenchReport, stdout: Output): void {
  const rows = [
    [`prefill ${prefill.promptTokens}`, ...rateCells(prefill)],
    [`decode ${decode.genTokens} after ${decode.contextTokens}`, ...rateCells(decode)],
  ];
  stdout.write(table(stdout, ["test", "tokens/s", "+/-"], rows));
  const roofline = `${percent(memory.rooflineFraction)} of the peak`;
  stdout.write(`\n${
    fields(stdout, [
      ["ternary work", `${giga(prefill.ternaryMacsPerSecondPerThread)} G MAC/s a thread`],
      ["weights in memory", bytes(memory.weightBytes)],
      ["weights read a token", bytes(decode.weightBytesPerToken)],
      ["keys and values read", `${bytes(decode.kvBytesPerToken)} of ${kvType} a token`],
      ["decode reads", `${bytes(decode.bytesPerSecond)}/s, ${roofline}`],
      ["memory's peak", peakText(memory)],
      ["most memory used", bytes(memory.peakRssBytes)],
    ])
  }`);
}

/** What plain reads between the steps got, beside the same neighbours. */
function peakText({ peakReadBytesPerSecond, bestReadBytesPerSecond }: BenchReport["memory"]) {
  return `${bytes(peakReadBytesPerSecond)}/s between the steps, ${
    bytes(bestReadBytesPerSecond)
  }/s at best`;
}

/** What a long context costs. */
function printFromStart({ decode: { fromStart, contextTokens } }: BenchReport, stdout: Output) {
  if (fromStart === undefined) return;
  const { tokensPerSecond, keptFraction, kvBytesPerSecond, kvRooflineFraction } = fromStart;
  const peak = `${percent(kvRooflineFraction)} of the peak`;
  stdout.write(`\n${
    fields(stdout, [
      ["decode from the start", `${digits(tokensPerSecond)} tokens/s`],
      [`speed kept after ${contextTokens}`, percent(keptFraction)],
      ["more keys and values", `${bytes(kvBytesPerSecond)}/s, ${peak}`],
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
    kernel.reason,
  ]);
  stdout.write(
    `\n${table(stdout, ["op", "n", "k", "scheme", "isa", "bits a weight", "why"], rows)}`,
  );
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

function printEnergy(energy: EnergyReport, stdout: Output): void {
  if (!energy.available) {
    stdout.write(`\nNo energy is told as ${energy.reason}: ${energy.remedy}\n`);
    return;
  }
  const headings = ["energy", "J/token", "package", "dram", "platform", "W"];
  const row = (name: string, phase: EnergyPhase) => [
    name,
    joules(phase.joulesPerToken),
    joules(phase.packageJoulesPerToken),
    joules(phase.dramJoulesPerToken),
    joules(phase.platformJoulesPerToken),
    digits(phase.watts),
  ];
  const rows = [row("prefill", energy.prefill), row("decode", energy.decode)];
  stdout.write(`\n${table(stdout, headings, rows)}`);
  const names = energy.domains.map(({ name }) => name).join(", ");
  stdout.write(`Of the whole machine, whatever else runs on it: ${names}\n`);
}

/** Prefill's tokens take millijoules. */
function joules(amount: number | null): string {
  return amount === null ? "-" : amount.toFixed(4);
}

function printCost(cost: CostReport, stdout: Output): void {
  const price = (eur: number) => `${eur.toFixed(eur < 0.1 ? 4 : 2)} EUR`;
  const together = (cost.batches ?? []).map(({ sequences, outputEurPerMillionTokens }) =>
    [`output, ${plural(sequences, "sequence")}`, price(outputEurPerMillionTokens)] as const
  );
  stdout.write(`\nA million tokens at ${cost.eurPerHour} EUR an hour:\n`);
  stdout.write(fields(stdout, [
    ["prompt", price(cost.promptEurPerMillionTokens)],
    ["output", price(cost.outputEurPerMillionTokens)],
    ...together,
  ]));
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
