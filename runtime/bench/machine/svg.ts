/**
 * Rooflines and bars as SVG text. The layout follows from the figures alone; colours follow the
 * reader's light or dark background.
 */

/** What limits a number of threads: memory to the left of the ridge, arithmetic to its right. */
export interface Roof {
  name: string;
  bytesPerSecond: number;
  macsPerSecond: number;
}

export interface RooflinePoint {
  /** What a reader who points at it is told. */
  label: string;
  macsPerByte: number;
  macsPerSecond: number;
}

/** Points that a line joins. */
export interface RooflineSeries {
  name: string;
  points: readonly RooflinePoint[];
}

export interface RooflineChart {
  title: string;
  subtitle: string;
  roofs: readonly Roof[];
  series: readonly RooflineSeries[];
}

/** Groups of bars, such as formats, each with a bar a series. */
export interface BarChart {
  title: string;
  subtitle: string;
  unit: string;
  series: readonly string[];
  groups: readonly { name: string; values: readonly number[] }[];
}

/** Okabe and Ito's colours, which people with any colour vision can tell apart, and two greys. */
const COLOURS = [
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#8c6d31",
  "#7f7f7f",
  "#b2a800",
  "#a05195",
];

const SIZE = { width: 900, height: 520 };
const PLOT = { left: 80, top: 92, right: 640, bottom: 460 };
const LEGEND_X = 660;
const LINE_HEIGHT = 20;

const STYLE = "svg{--ink:#1f2328;--faint:#d0d7de;--paper:#ffffff;" +
  "font:13px system-ui,sans-serif}" +
  "@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--faint:#3d444d;--paper:#0d1117}}" +
  "text{fill:var(--ink)}.paper{fill:var(--paper)}.grid{stroke:var(--faint)}" +
  ".roof{stroke:var(--ink);stroke-width:2;fill:none}.line{stroke-width:1.5;fill:none}" +
  ".title{font-size:17px;font-weight:600}.end{text-anchor:end}.middle{text-anchor:middle}";

/** Text of unknown origin as text of an SVG. Control characters are not allowed in XML at all. */
export function escaped(text: string): string {
  return text.toWellFormed()
    // deno-lint-ignore no-control-regex
    .replace(/[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]/g, "\ufffd")
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** Whole tenths of a pixel, so that text stays the same on every machine. */
function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function text(x: number, y: number, content: string, style = ""): string {
  const attribute = style === "" ? "" : ` class="${style}"`;
  return `<text x="${px(x)}" y="${px(y)}"${attribute}>${escaped(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, style: string): string {
  return `<line x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}" class="${style}"/>`;
}

function drawing(
  { title, subtitle }: { title: string; subtitle: string },
  parts: string[],
): string {
  const { width, height } = SIZE;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="paper" width="${width}" height="${height}"/>`,
    text(PLOT.left, 30, title, "title"),
    text(PLOT.left, 52, subtitle),
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

// ---------------------------------------------------------------- axes

/** A logarithmic axis from one 1, 2 or 5 to another. */
interface Axis {
  least: number;
  most: number;
  at(value: number): number;
  ticks: number[];
}

/** All of 1, 2, 5, 10, ... from the last that is not above `least` to the first not below `most`. */
export function logTicks(least: number, most: number): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); ticks.length < 60; power++) {
    for (const digit of [1, 2, 5]) {
      // Powers of negative exponents are not exact: 1e-1, not 10 ** -1.
      const tick = Number(`${digit}e${power}`);
      ticks.push(tick);
      if (tick >= most) return ticks.slice(ticks.findLastIndex((one) => one <= least));
    }
  }
  return ticks;
}

function axis(values: readonly number[], from: number, to: number): Axis {
  const ticks = logTicks(Math.min(...values), Math.max(...values));
  const least = ticks[0];
  const most = ticks[ticks.length - 1];
  const scale = (to - from) / Math.log(most / least);
  return { least, most, ticks, at: (value) => from + Math.log(value / least) * scale };
}

function grid(x: Axis, y: Axis): string[] {
  return [
    ...x.ticks.flatMap((tick) => [
      line(x.at(tick), PLOT.top, x.at(tick), PLOT.bottom, "grid"),
      text(x.at(tick), PLOT.bottom + 18, String(tick), "middle"),
    ]),
    ...y.ticks.flatMap((tick) => [
      line(PLOT.left, y.at(tick), PLOT.right, y.at(tick), "grid"),
      text(PLOT.left - 8, y.at(tick) + 4, String(tick), "end"),
    ]),
  ];
}

// ---------------------------------------------------------------- roofline

/**
 * Multiply-adds a second over multiply-adds for each byte of weights, both logarithmic. A point on a
 * roof's slope is limited by memory, on its level part by int8 arithmetic.
 */
export function rooflineSvg(chart: RooflineChart): string {
  const points = chart.series.flatMap((series) => series.points);
  const ridges = chart.roofs.map((roof) => roof.macsPerSecond / roof.bytesPerSecond);
  const x = axis([...points.map((p) => p.macsPerByte), ...ridges], PLOT.left, PLOT.right);
  const heights = [...points, ...chart.roofs].map(({ macsPerSecond }) => macsPerSecond / 1e9);
  const starts = chart.roofs.map((roof) => roof.bytesPerSecond * x.least / 1e9);
  const y = axis([...heights, ...starts], PLOT.bottom, PLOT.top);
  return drawing(chart, [
    ...grid(x, y),
    text(
      (PLOT.left + PLOT.right) / 2,
      PLOT.bottom + 42,
      "multiply-adds for each byte of weights",
      "middle",
    ),
    text(PLOT.left, PLOT.top - 14, "G multiply-adds/s"),
    ...chart.roofs.flatMap((roof) => roofPath(roof, x, y)),
    ...chart.series.flatMap((series, i) => seriesParts(series, i, x, y)),
    ...legend(chart.series.map(({ name }) => name)),
  ]);
}

function roofPath(roof: Roof, x: Axis, y: Axis): string[] {
  const height = roof.macsPerSecond / 1e9;
  const ridge = roof.macsPerSecond / roof.bytesPerSecond;
  const start = [x.at(x.least), y.at(roof.bytesPerSecond * x.least / 1e9)];
  const corners = [start, [x.at(ridge), y.at(height)], [x.at(x.most), y.at(height)]];
  const memory = (roof.bytesPerSecond / 1e9).toFixed(1);
  const name = `${roof.name}: ${memory} GB/s, int8 ${height.toFixed(0)} G/s`;
  return [
    `<polyline class="roof" points="${corners.map((c) => c.map(px).join(",")).join(" ")}"/>`,
    text(x.at(x.most) - 6, y.at(height) - 6, name, "end"),
  ];
}

function seriesParts({ points }: RooflineSeries, index: number, x: Axis, y: Axis): string[] {
  const colour = COLOURS[index % COLOURS.length];
  const places = points.map((p) => [x.at(p.macsPerByte), y.at(p.macsPerSecond / 1e9)] as const);
  const corners = places.map((place) => place.map(px).join(",")).join(" ");
  return [
    `<polyline class="line" stroke="${colour}" points="${corners}"/>`,
    ...places.map(([left, top], i) => marker(index, left, top, points[i].label)),
  ];
}

/** Every series has its own colour and shape. */
function marker(index: number, x: number, y: number, label?: string): string {
  const fill = `fill="${COLOURS[index % COLOURS.length]}"`;
  const title = label === undefined ? "" : `<title>${escaped(label)}</title>`;
  const around = (corners: readonly (readonly [number, number])[]) =>
    `<polygon ${fill} points="${
      corners.map(([dx, dy]) => `${px(x + dx)},${px(y + dy)}`).join(" ")
    }">${title}</polygon>`;
  switch (index % 4) {
    case 0:
      return `<circle ${fill} cx="${px(x)}" cy="${px(y)}" r="4.5">${title}</circle>`;
    case 1:
      return around([[-4, -4], [4, -4], [4, 4], [-4, 4]]);
    case 2:
      return around([[0, -5], [5, 4], [-5, 4]]);
    default:
      return around([[0, -6], [6, 0], [0, 6], [-6, 0]]);
  }
}

function legend(names: readonly string[]): string[] {
  return names.flatMap((name, i) => {
    const y = PLOT.top + 8 + i * LINE_HEIGHT;
    return [marker(i, LEGEND_X, y - 4), text(LEGEND_X + 14, y, name)];
  });
}

// ---------------------------------------------------------------- bars

/** Horizontal bars from 0, with their values. */
export function barsSvg(chart: BarChart): string {
  const most = Math.max(...chart.groups.flatMap(({ values }) => values));
  const step = (PLOT.bottom - PLOT.top) / Math.max(chart.groups.length, 1);
  const height = Math.min(22, step * 0.8 / Math.max(chart.series.length, 1));
  const left = PLOT.left + 60;
  const parts = chart.groups.flatMap(({ name, values }, g) => {
    const top = PLOT.top + g * step + (step - height * values.length) / 2;
    return [
      text(left - 8, top + height * values.length / 2 + 4, name, "end"),
      ...values.flatMap((value, i) => {
        const width = most > 0 ? value / most * (PLOT.right - left - 60) : 0;
        const y = top + i * height;
        const colour = COLOURS[i % COLOURS.length];
        return [
          `<rect fill="${colour}" x="${left}" y="${px(y)}" width="${px(width)}" height="${
            px(height - 2)
          }"/>`,
          text(left + width + 6, y + height / 2 + 4, `${value.toFixed(1)} ${chart.unit}`),
        ];
      }),
    ];
  });
  return drawing(chart, [...parts, ...legend(chart.series)]);
}
