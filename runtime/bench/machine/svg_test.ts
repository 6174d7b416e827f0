import assert from "node:assert/strict";
import {
  type BarChart,
  barsSvg,
  escaped,
  logTicks,
  type RooflineChart,
  rooflineSvg,
} from "./svg.ts";

const CHART: RooflineChart = {
  title: "A & B <script>",
  subtitle: "\u0000 of \ud800",
  roofs: [{ name: "1 thread", bytesPerSecond: 30e9, macsPerSecond: 240e9 }],
  series: [
    { name: "s<1>", points: [{ label: 'p"1"', macsPerByte: 4, macsPerSecond: 100e9 }] },
    {
      name: "s2",
      points: [
        { label: "low", macsPerByte: 4, macsPerSecond: 50e9 },
        { label: "high", macsPerByte: 64, macsPerSecond: 200e9 },
      ],
    },
  ],
};

const BARS: BarChart = {
  title: "bars",
  subtitle: "",
  unit: "tokens/s",
  series: ["a", "b"],
  groups: [{ name: "<g>", values: [10, 5] }, { name: "h", values: [0, 2.5] }],
};

/** Elements open and close in order, and attributes are quoted: what a browser asks of an SVG. */
function assertWellFormed(svg: string): void {
  const open: string[] = [];
  const rest = svg.replaceAll(
    /<(\/?)([a-z]+)((?: [\w:-]+="[^"<]*")*)(\/?)>/g,
    (_, end, name, __, self) => {
      if (end) assert.equal(open.pop(), name);
      else if (!self) open.push(name);
      return "";
    },
  );
  assert.deepEqual(open, []);
  assert.doesNotMatch(rest, /[<>]|&(?!(amp|lt|gt|quot);)/);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(svg, /[\x00-\x08\x0b-\x1f]/);
  assert.ok(svg.isWellFormed());
}

Deno.test("svg: pictures are well-formed whatever their texts are", () => {
  for (const svg of [rooflineSvg(CHART), barsSvg(BARS)]) assertWellFormed(svg);
  assert.match(rooflineSvg(CHART), /<title>A &amp; B &lt;script&gt;<\/title>/);
  assert.equal(
    escaped('<a href="x">&\u0001\ud800'),
    "&lt;a href=&quot;x&quot;&gt;&amp;\ufffd\ufffd",
  );
});

Deno.test("svg: the same figures give the same picture, with colours for both backgrounds", () => {
  assert.equal(rooflineSvg(structuredClone(CHART)), rooflineSvg(CHART));
  assert.match(rooflineSvg(CHART), /prefers-color-scheme:dark/);
});

/** Centres of the circles and first corners of the squares. */
function placesOf(svg: string, pattern: RegExp): [number, number][] {
  return [...svg.matchAll(pattern)].map(([, x, y]) => [Number(x), Number(y)]);
}

Deno.test("svg: faster is higher, more reuse is further right, and all is inside of the plot", () => {
  const svg = rooflineSvg(CHART);
  const [circle] = placesOf(svg, /cx="([\d.]+)" cy="([\d.]+)" r="4.5"><title>p/g);
  const [low, high] = placesOf(svg, /<polygon [^>]*points="([\d.]+),([\d.]+) [^>]*><title>/g);
  assert.ok(high[0] > low[0] && high[1] < low[1], "both axes");
  assert.ok(circle[1] < low[1], "twice as fast");
  for (const [x, y] of [circle, low, high]) {
    assert.ok(x >= 70 && x <= 650 && y >= 80 && y <= 470, `${x}, ${y}`);
  }
});

Deno.test("svg: a roof bends where memory and arithmetic are equally slow", () => {
  const svg = rooflineSvg(CHART);
  const corners = /class="roof" points="([^"]+)"/.exec(svg)![1].split(" ")
    .map((corner) => corner.split(",").map(Number));
  assert.equal(corners.length, 3);
  assert.equal(corners[1][1], corners[2][1], "level on the right");
  assert.ok(corners[0][1] > corners[1][1], "rising on the left");
});

Deno.test("svg: ticks are 1, 2, 5 around the values", () => {
  assert.deepEqual(logTicks(3, 90), [2, 5, 10, 20, 50, 100]);
  assert.deepEqual(logTicks(1, 1), [1]);
  assert.deepEqual(logTicks(0.03, 0.4), [0.02, 0.05, 0.1, 0.2, 0.5]);
  assert.deepEqual(logTicks(2, 2), [2]);
});

Deno.test("svg: bars are as long as their values", () => {
  const svg = barsSvg(BARS);
  const widths = [...svg.matchAll(/<rect fill[^>]* width="([\d.]+)"/g)].map(([, w]) => Number(w));
  assert.equal(widths.length, 4);
  assert.equal(widths[0], 2 * widths[1]);
  assert.deepEqual([widths[2], widths[3]], [0, widths[0] / 4]);
});
