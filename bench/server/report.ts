/** The benchmark's report for people. */
import type { LoadReport } from "./load.ts";
import type { ServerBenchReport } from "./run.ts";

type Column = [name: string, of: (load: LoadReport) => string];

/** What could not be measured has a dash. */
const decimal = (value: number, most: number) =>
  Number.isNaN(value) ? "-" : value.toFixed(value < most ? 1 : 0);
const ms = (value: number) => decimal(value, 10);
const rate = (value: number) => decimal(value, 100);

const COLUMNS: readonly Column[] = [
  ["clients", ({ clients }) => String(clients)],
  ["decode tokens/s", ({ decodeTokensPerSecond }) => rate(decodeTokensPerSecond)],
  ["all tokens/s", ({ tokensPerSecond }) => rate(tokensPerSecond)],
  ["first token p50 ms", ({ timeToFirstTokenMs }) => ms(timeToFirstTokenMs.p50)],
  ["p99", ({ timeToFirstTokenMs }) => ms(timeToFirstTokenMs.p99)],
  ["between tokens p50 ms", ({ interTokenMs }) => ms(interTokenMs.p50)],
  ["p99", ({ interTokenMs }) => ms(interTokenMs.p99)],
  ["loop late p99 ms", ({ eventLoopLagMs }) => ms(eventLoopLagMs?.p99 ?? NaN)],
  ["most", ({ eventLoopLagMs }) => ms(eventLoopLagMs?.max ?? NaN)],
  ["own most", ({ eventLoopLagMs }) => ms(eventLoopLagMs?.own ?? NaN)],
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
  const { model, threads, prefillTokensPerSecond } = report;
  const { twoClientsRatio, sixteenClientsFraction } = report;
  return [
    `${model}, ${threads === null ? "default" : threads} threads; prefill of one long prompt: ` +
    `${rate(prefillTokensPerSecond)} tokens/s`,
    ...(!Number.isFinite(twoClientsRatio)
      ? []
      : [`2 clients decode ${twoClientsRatio!.toFixed(2)} x as much as 1`]),
    ...(!Number.isFinite(sixteenClientsFraction)
      ? []
      : [`16 clients decode ${(100 * sixteenClientsFraction!).toFixed(0)} % of the prefill rate`]),
    ...report.loads.flatMap(({ clients, errors }) =>
      [...new Set(errors)].map((error) => `${clients} clients: ${error}`)
    ),
  ];
}
