/** The benchmark's report for people. */
import type { LoadReport } from "./load.ts";
import type { ServerBenchReport } from "./run.ts";

type Column = [name: string, of: (load: LoadReport) => string];

const ms = (value: number) => value.toFixed(value < 10 ? 1 : 0);
const rate = (value: number) => value.toFixed(value < 100 ? 1 : 0);

const COLUMNS: readonly Column[] = [
  ["clients", ({ clients }) => String(clients)],
  ["decode tokens/s", ({ decodeTokensPerSecond }) => rate(decodeTokensPerSecond)],
  ["all tokens/s", ({ tokensPerSecond }) => rate(tokensPerSecond)],
  ["first token p50 ms", ({ timeToFirstTokenMs }) => ms(timeToFirstTokenMs.p50)],
  ["p99", ({ timeToFirstTokenMs }) => ms(timeToFirstTokenMs.p99)],
  ["between tokens p50 ms", ({ interTokenMs }) => ms(interTokenMs.p50)],
  ["p99", ({ interTokenMs }) => ms(interTokenMs.p99)],
  ["errors", ({ errors }) => String(errors.length)],
];

/** A table as README.md has it, and the sentences below it. */
export function markdownOf(report: ServerBenchReport): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    line(COLUMNS.map(([name]) => name)),
    line(COLUMNS.map(() => "--:")),
    ...report.loads.map((load) => line(COLUMNS.map(([, of]) => of(load)))),
    "",
    ...sentencesOf(report),
    "",
  ].join("\n");
}

/** The same, aligned. */
export function textOf(report: ServerBenchReport): string {
  const rows = [
    COLUMNS.map(([name]) => name),
    ...report.loads.map((load) => COLUMNS.map(([, of]) => of(load))),
  ];
  const widths = COLUMNS.map((_, c) => Math.max(...rows.map((row) => row[c].length)));
  const lines = rows.map((row) => row.map((cell, c) => cell.padStart(widths[c])).join("  "));
  return [...lines, "", ...sentencesOf(report), ""].join("\n");
}

function sentencesOf(report: ServerBenchReport): string[] {
  const { model, threads, prefillTokensPerSecond, eventLoopLagMs } = report;
  const { twoClientsRatio, sixteenClientsFraction } = report;
  return [
    `${model}, ${threads === null ? "default" : threads} threads; prefill of one long prompt: ` +
    `${rate(prefillTokensPerSecond)} tokens/s`,
    ...(twoClientsRatio === null
      ? []
      : [`2 clients decode ${twoClientsRatio.toFixed(2)} x as much as 1`]),
    ...(sixteenClientsFraction === null
      ? []
      : [`16 clients decode ${(100 * sixteenClientsFraction).toFixed(0)} % of the prefill rate`]),
    ...(eventLoopLagMs === null ? [] : [
      `The event loop was late by ${ms(eventLoopLagMs.p99)} ms (p99), ` +
      `${ms(eventLoopLagMs.max)} ms at most, of which its own work at most ${
        ms(eventLoopLagMs.own)
      } ms`,
    ]),
    ...report.loads.flatMap(({ clients, errors }) =>
      [...new Set(errors)].map((error) => `${clients} clients: ${error}`)
    ),
  ];
}
