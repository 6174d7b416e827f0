import type { Output } from "./io.ts";

const STYLES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** Text in a style, or as it is where there are no colours. */
export function paint(output: Output, style: keyof typeof STYLES, text: string): string {
  return output.hasColour ? `\x1b[${STYLES[style]}m${text}\x1b[0m` : text;
}

/** Text of unknown origin without control characters that could steer the terminal. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "\ufffd");
}

/** One JSON document: on a terminal for a person to read, else on one line. */
export function printJson(output: Output, value: unknown): void {
  output.write(`${JSON.stringify(value, null, output.isTerminal ? 2 : undefined)}\n`);
}

/** The number of fewest digits that is the same float32, as 9 always are. */
export function shortFloat32(value: number): number {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

export type Cell = string | number;

/** A number, perhaps with a unit: such columns go to the right. */
const NUMERIC = /^-?[\d.,]+( %| [kMGT]?B)?$/;

/** Rows in aligned columns, numbers to the right, below their bold headings. */
export function table(
  output: Output,
  headings: readonly string[],
  rows: readonly Cell[][],
): string {
  const widths = headings.map((heading, c) =>
    Math.max(heading.length, ...rows.map((row) => String(row[c]).length))
  );
  const isNumeric = headings.map((_, c) => rows.every((row) => NUMERIC.test(String(row[c]))));
  const align = (cells: readonly Cell[]) =>
    cells.map((cell, c) =>
      isNumeric[c] ? String(cell).padStart(widths[c]) : String(cell).padEnd(widths[c])
    ).join("  ").trimEnd();
  const lines = [paint(output, "bold", align(headings)), ...rows.map(align)];
  return lines.map((line) => `${line}\n`).join("");
}

/** `name  value` lines, names in one column. */
export function fields(output: Output, pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${paint(output, "bold", name.padEnd(width))}  ${value}\n`)
    .join("");
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** Three digits or so: 1.23 GB. Units are powers of 1000. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  for (; value >= 999.5 && unit < BYTE_UNITS.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? value : digits(value)} ${BYTE_UNITS[unit]}`;
}

/** A measured number with three digits: 0.123, 1.23, 12.3, 123. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

export function grouped(count: number): string {
  return count.toLocaleString("en-US");
}
