import type { BenchReport, PeersReport, StepProfile } from "../types.ts";
import { threadsName } from "./charts.ts";
import type { LinearFigures, MachineReport } from "./types.ts";

/** The report as Markdown; pictures lie beside it. */
export function markdownOf(report: MachineReport): string {
  const { versions, cpu, shape, command, peers } = report;
  const sections = [
    `# Trilith on ${plain(cpu)}`,
    `Trilith ${plain(versions.trilith)}, Zig ${plain(versions.zig)}, ${plain(versions.runtime)}. ` +
    "All figures are medians of one run, in `report.json` too. To measure them again:",
    `    ${plain(command)}`,
    "## The machine",
    "The most that was read from memory and multiplied in int8 registers, in the same run.",
    table(
      ["threads", "memory GB/s", "int8 G multiply-adds/s"],
      report.peaks.map((peak) => [
        String(peak.threads),
        giga(peak.bytesPerSecond),
        giga(peak.macsPerSecond),
      ]),
    ),
    `## ${plain(shape)}`,
    "![Steps of the whole model](model.svg)",
    ratesTable(report.runs),
    "Several sequences that decode together; the ratio is a step's time to the larger of its memory " +
    "time and its arithmetic time.",
    batchesTable(report.runs),
    ...report.runs.map(profileSection),
    "## Kernels",
    "Weights come from memory, inputs are made anew. Lookups do not multiply: they may be above the " +
    "int8 roof.",
    "![Linears by kernel](schemes.svg)",
    linearsTable(report.schemes),
    "## Shapes",
    "![Linears by shape](shapes.svg)",
    linearsTable(report.shapes),
    ...(peers === undefined ? [] : peersSection(peers)),
  ];
  return `${sections.join("\n\n")}\n`;
}

/** Text of unknown origin without what Markdown or HTML would make something of. */
export function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f]+/g, " ").replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replace(/[\\`*[\]|!]/g, "\\$&");
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = `|${headings.map((_, i) => i === 0 ? "---" : "---:").join("|")}|`;
  return [line(headings), rule, ...rows.map(line)].join("\n");
}

function giga(amount: number): string {
  return (amount / 1e9).toFixed(1);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function milliseconds(seconds: number): string {
  return (1000 * seconds).toFixed(2);
}

function ratesTable(runs: readonly BenchReport[]): string {
  const headings = ["", "prefill tokens/s", "decode tokens/s", "MB a token", "of the memory peak"];
  return table(
    headings,
    runs.map(({ threads, prefill, decode, memory }) => [
      threadsName(threads),
      `${prefill.tokensPerSecond.toFixed(1)} (${prefill.promptTokens} tokens)`,
      `${decode.tokensPerSecond.toFixed(1)} (${decode.genTokens} tokens)`,
      (decode.weightBytesPerToken / 1e6).toFixed(0),
      percent(memory.rooflineFraction),
    ]),
  );
}

function batchesTable(runs: readonly BenchReport[]): string {
  const headings = ["", "sequences", "tokens/s", "step ms", "memory ms", "arithmetic ms", "ratio"];
  const rows = runs.flatMap(({ threads, batches = [] }) =>
    batches.map((batch) => [
      threadsName(threads),
      String(batch.sequences),
      batch.tokensPerSecond.toFixed(1),
      milliseconds(batch.stepSeconds),
      milliseconds(batch.memorySeconds),
      batch.arithmeticSeconds === null ? "-" : milliseconds(batch.arithmeticSeconds),
      batch.ratio.toFixed(2),
    ])
  );
  return table(headings, rows);
}

function profileSection({ threads, profile }: BenchReport): string {
  const { prefill, decode } = profile!;
  const share = (step: StepProfile, phase: string) =>
    percent(step.phases.find((one) => one.phase === phase)?.share ?? 0);
  const phases = decode.phases.filter(({ phase, seconds }) =>
    seconds > 0 || prefill.phases.some((one) => one.phase === phase && one.seconds > 0)
  );
  const rows = phases.map(({ phase, bytesPerSecond }) => [
    phase,
    share(decode, phase),
    giga(bytesPerSecond),
    share(prefill, phase),
  ]);
  return [
    `Where a step's time goes with ${
      threadsName(threads)
    }: outside of linears, attention and head ` +
    `are ${percent(decode.restShare)} of decode and ${percent(prefill.restShare)} of prefill, ` +
    "waiting at barriers included.",
    table(["phase", "decode", "decode GB/s", "prefill"], rows),
  ].join("\n\n");
}

function linearsTable(figures: readonly LinearFigures[]): string {
  const headings = ["kernel", "shape", "bits", "tokens", "us", "GB/s", "G multiply-adds/s"];
  const rows = figures.map((figure) => [
    figure.kernel,
    `${figure.n} x ${figure.k}`,
    figure.bitsPerWeight.toFixed(2),
    String(figure.tokens),
    (figure.seconds * 1e6).toFixed(1),
    giga(figure.bytesPerSecond),
    giga(figure.macsPerSecond),
  ]);
  return table(headings, rows);
}

function peersSection(peers: PeersReport): string[] {
  const rows = peers.peers.map((peer) =>
    "problem" in peer
      ? [peer.format, `does not run: ${plain(peer.problem)}`, "", "", "", "", "", ""]
      : [
        peer.format,
        plain(peer.build),
        peer.prefill.tokensPerSecond.toFixed(1),
        peer.trilithPrefill.tokensPerSecond.toFixed(1),
        peer.prefillRatio.toFixed(2),
        peer.decode.tokensPerSecond.toFixed(1),
        peer.trilithDecode.tokensPerSecond.toFixed(1),
        peer.decodeRatio.toFixed(2),
      ]
  );
  return [
    `## Beside llama.cpp (npm: ${plain(peers.package)})`,
    `${plain(peers.shape)} on ${plain(peers.cpu)} with ${threadsName(peers.threads)}, prefill of ` +
    `${peers.promptTokens} and decode of ${peers.genTokens} tokens, in turns in one run; medians of ` +
    `${peers.repeat}. Trilith ran ${plain(peers.kernel)}.`,
    "![Prefill](peers_prefill.svg)",
    "![Decode](peers_decode.svg)",
    table(
      ["format", "build", "prefill", "Trilith", "x", "decode", "Trilith", "x"],
      rows,
    ),
  ];
}
