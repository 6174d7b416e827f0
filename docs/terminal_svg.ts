/**
 * A picture of a terminal from what `script` recorded of it, so that pictures in the documentation
 * show real output and can be made again: standard input to standard output. `first_runs.sh` has the
 * commands.
 */

/** How a run of characters looks. */
export type Style = "plain" | "bold" | "dim" | "red" | "green" | "yellow";

export interface Segment {
  text: string;
  style: Style;
}

/** One place of the screen. */
type Cell = { character: string; style: Style };

/** What Trilith's own output uses of SGR; other codes change nothing. */
const STYLES: Readonly<Record<string, Style>> = {
  "": "plain",
  "0": "plain",
  "1": "bold",
  "2": "dim",
  "22": "plain",
  "31": "red",
  "32": "green",
  "33": "yellow",
  "39": "plain",
};

/** A line break, a return, an escape sequence, or a character that is shown. */
// deno-lint-ignore no-control-regex -- these are what a recording consists of
const TOKEN = /\r?\n|\r|\x1b\[([0-9;?]*)([A-Za-z])|[^\x00-\x1f]/gu;

/**
 * What stands on the screen in the end: later text replaces what it was written over.
 *
 * @param columns Longer lines go on in the next one.
 */
export function screenOf(recording: string, columns: number): Segment[][] {
  const lines: Cell[][] = [[]];
  let column = 0;
  let style: Style = "plain";
  for (const [token, parameters, command] of withoutHeader(recording).matchAll(TOKEN)) {
    const line = lines.at(-1)!;
    if (token.endsWith("\n")) {
      lines.push([]);
      column = 0;
    } else if (token === "\r") {
      column = 0;
    } else if (command === "K") {
      line.length = parameters === "2" ? 0 : Math.min(line.length, column);
    } else if (command === "G") {
      column = Math.max(1, Number(parameters)) - 1;
    } else if (command === "m") {
      style = STYLES[parameters] ?? style;
    } else if (command === undefined) {
      if (column === columns) {
        lines.push([]);
        column = 0;
      }
      write(lines.at(-1)!, column++, { character: token, style });
    }
  }
  while (lines.at(-1)?.length === 0) lines.pop();
  return lines.map(segmentsOf);
}

/** What `script` says of itself. */
function withoutHeader(recording: string): string {
  return recording.replaceAll(/^Script (started|done)( on .*|\.)\r?\n?/gm, "");
}

function write(line: Cell[], column: number, cell: Cell): void {
  while (line.length < column) line.push({ character: " ", style: "plain" });
  line[column] = cell;
}

function segmentsOf(line: readonly Cell[]): Segment[] {
  const segments: Segment[] = [];
  for (const { character, style } of line) {
    const last = segments.at(-1);
    if (last?.style === style) last.text += character;
    else segments.push({ text: character, style });
  }
  return segments;
}

/** Pixels. */
const CHARACTER_WIDTH = 8.4;
const LINE_HEIGHT = 20;
const MARGIN = 18;
const BAR_HEIGHT = 34;

const BUTTONS = ["#ff5f57", "#febc2e", "#28c840"];
const ATTRIBUTES: Readonly<Record<Style, string>> = {
  plain: 'fill="#d6dae3"',
  bold: 'fill="#ffffff" font-weight="bold"',
  dim: 'fill="#8b93a5"',
  red: 'fill="#ff7b72"',
  green: 'fill="#7ee787"',
  yellow: 'fill="#e3b341"',
};

/** @param title Told to those who can't see the picture. */
export function terminalSvg(lines: readonly Segment[][], columns: number, title: string): string {
  const width = Math.ceil(columns * CHARACTER_WIDTH + 2 * MARGIN);
  const height = BAR_HEIGHT + lines.length * LINE_HEIGHT + 2 * MARGIN;
  const buttons = BUTTONS.map((fill, i) =>
    `<circle cx="${MARGIN + 6 + 20 * i}" cy="${BAR_HEIGHT / 2}" r="6" fill="${fill}"/>`
  );
  const texts = lines.flatMap((line, row) => lineTexts(line, row));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="${width}" height="${height}" ` +
    `viewBox="0 0 ${width} ${height}" font-size="14" ` +
    `font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" rx="10" fill="#15181f"/>`,
    `<path d="M0 ${BAR_HEIGHT}V10a10 10 0 0 1 10-10H${
      width - 10
    }a10 10 0 0 1 10 10V${BAR_HEIGHT}z" fill="#22262f"/>`,
    ...buttons,
    ...texts,
    "</svg>",
    "",
  ].join("\n");
}

function lineTexts(line: readonly Segment[], row: number): string[] {
  const y = BAR_HEIGHT + MARGIN + row * LINE_HEIGHT + 14;
  let column = 0;
  return line.flatMap(({ text, style }) => {
    const shown = text.trim();
    // Not all viewers keep spaces at the ends of a text: it starts where its first letter is.
    const x = pixels(column + [...text].length - [...text.trimStart()].length) + MARGIN;
    column += [...text].length;
    if (shown === "") return [];
    // Fonts differ in width: a given length keeps the columns where they belong.
    const length = `textLength="${pixels([...shown].length)}"`;
    return [`<text x="${x}" y="${y}" ${length} ${ATTRIBUTES[style]}>${escaped(shown)}</text>`];
  });
}

function pixels(columns: number): number {
  return Math.round(columns * CHARACTER_WIDTH * 10) / 10;
}

/** Spaces that do not collapse, so that formatters of SVG can't change the picture. */
function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll(/^ | $| (?= )/g, "\u00a0");
}

const COLUMNS = 100;

if (import.meta.main) {
  const recording = await new Response(Deno.stdin.readable).text();
  const title =
    "Trilith's first run fetches a compiler and builds kernels; the second starts at once";
  console.log(terminalSvg(screenOf(recording, COLUMNS), COLUMNS, title).trimEnd());
}
