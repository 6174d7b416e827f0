import type { BenchReport, PeersReport } from "../types.ts";
import {
  type BarChart,
  barsSvg,
  type RooflineChart,
  type RooflinePoint,
  type RooflineSeries,
  rooflineSvg,
} from "./svg.ts";
import type { LinearFigures, MachineReport } from "./types.ts";

/** The report's pictures: file name to SVG. */
export function picturesOf(report: MachineReport): Map<string, string> {
  const pictures = new Map([
    ["schemes.svg", rooflineSvg(schemesChart(report))],
    ["shapes.svg", rooflineSvg(shapesChart(report))],
    ["model.svg", rooflineSvg(modelChart(report))],
  ]);
  if (report.peers !== undefined) {
    pictures.set("peers_prefill.svg", barsSvg(peersChart(report.peers, "prefill")));
    pictures.set("peers_decode.svg", barsSvg(peersChart(report.peers, "decode")));
  }
  return pictures;
}

function roofsOf({ peaks }: MachineReport, most?: number): RooflineChart["roofs"] {
  return peaks.filter(({ threads }) => most === undefined || threads === most)
    .map(({ threads, ...peak }) => ({ name: threadsName(threads), ...peak }));
}

export function threadsName(threads: number): string {
  return `${threads} thread${threads === 1 ? "" : "s"}`;
}

/** Figures of one name in a series, in their order. */
function seriesBy(
  figures: readonly LinearFigures[],
  nameOf: (figure: LinearFigures) => string,
): RooflineSeries[] {
  const groups = Map.groupBy(figures, nameOf);
  return [...groups].map(([name, members]) => ({ name, points: members.map(pointOf) }));
}

function pointOf(figure: LinearFigures): RooflinePoint {
  const { kernel, n, k, tokens, macsPerByte, macsPerSecond } = figure;
  const label = `${kernel}, ${n} x ${k}, ${tokens} token${tokens === 1 ? "" : "s"}: ` +
    `${(macsPerSecond / 1e9).toFixed(0)} G/s, ${(figure.bytesPerSecond / 1e9).toFixed(1)} GB/s`;
  return { label, macsPerByte, macsPerSecond };
}

function schemesChart(report: MachineReport): RooflineChart {
  const [{ n, k, threads }] = report.schemes;
  return {
    title: `Ternary linears by kernel: ${n} x ${k}, weights from memory`,
    subtitle: `${report.cpu}, ${threadsName(threads)}; ${tokensOf(report.schemes)} tokens`,
    roofs: roofsOf(report, threads),
    series: seriesBy(report.schemes, ({ kernel }) => kernel),
  };
}

function shapesChart(report: MachineReport): RooflineChart {
  const [{ kernel, threads }] = report.shapes;
  return {
    title: `Ternary linears by shape: ${kernel}, weights from memory`,
    subtitle: `${report.cpu}, ${threadsName(threads)}; ${tokensOf(report.shapes)} tokens`,
    roofs: roofsOf(report, threads),
    series: seriesBy(report.shapes, ({ n, k }) => `${n} x ${k}`),
  };
}

function tokensOf(figures: readonly LinearFigures[]): string {
  return [...new Set(figures.map(({ tokens }) => tokens))].join(", ");
}

/** Steps of the whole model: decode, several sequences together, prefill. */
function modelChart(report: MachineReport): RooflineChart {
  return {
    title: `Steps of the whole model: ${report.shape}`,
    subtitle: `${report.cpu}; multiply-adds of the ternary linears, bytes of all that a step reads`,
    roofs: roofsOf(report),
    series: report.runs.flatMap((run) => {
      const threads = threadsName(run.threads);
      return [
        { name: `decode, ${threads}`, points: decodePoints(run) },
        { name: `prefill, ${threads}`, points: [prefillPoint(run)] },
      ];
    }),
  };
}

function decodePoints({ threads, batches = [] }: BenchReport): RooflinePoint[] {
  return batches.map((batch) => {
    const macsPerSecond = batch.ternaryMacsPerSecondPerThread * threads;
    return {
      label: `${batch.sequences} together: ${batch.tokensPerSecond.toFixed(1)} tokens/s, ` +
        `${batch.ratio.toFixed(2)} of the wall's time`,
      macsPerByte: macsPerSecond * batch.stepSeconds / batch.bytesPerStep,
      macsPerSecond,
    };
  });
}

function prefillPoint({ prefill, decode, threads }: BenchReport): RooflinePoint {
  const macsPerSecond = prefill.ternaryMacsPerSecondPerThread * threads;
  const macsPerToken = macsPerSecond / prefill.tokensPerSecond;
  return {
    label: `prefill of ${prefill.promptTokens}: ${prefill.tokensPerSecond.toFixed(1)} tokens/s`,
    macsPerByte: macsPerToken * prefill.promptTokens / decode.weightBytesPerToken,
    macsPerSecond,
  };
}

function peersChart(peers: PeersReport, phase: "prefill" | "decode"): BarChart {
  const tokens = phase === "prefill" ? peers.promptTokens : peers.genTokens;
  const measured = peers.peers.flatMap((peer) => "problem" in peer ? [] : [peer]);
  return {
    title: `${phase === "prefill" ? "Prefill" : "Decode"} of ${tokens} tokens: ${peers.shape}`,
    subtitle: `${peers.cpu}, ${threadsName(peers.threads)}; each pair measured in turns`,
    unit: "tokens/s",
    series: [`Trilith ${peers.kernel}`, "llama.cpp"],
    groups: measured.map(({ format, ...peer }) => {
      const [ours, theirs] = phase === "prefill"
        ? [peer.trilithPrefill, peer.prefill]
        : [peer.trilithDecode, peer.decode];
      return { name: format, values: [ours.tokensPerSecond, theirs.tokensPerSecond] };
    }),
  };
}
