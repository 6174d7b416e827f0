import assert from "node:assert/strict";
import type { Progress } from "../runtime/types.ts";
import { createProgress } from "./progress.ts";

function show(isTerminal: boolean, events: [ms: number, progress: Progress][], quiet = false) {
  let text = "";
  let now = 0;
  const output = {
    isTerminal,
    hasColour: false,
    columns: 50,
    write: (more: string) => void (text += more),
    writeSoon: () => Promise.resolve(),
  };
  const display = createProgress(output, { quiet, nowMs: () => now });
  for (const [ms, progress] of events) {
    now = ms;
    display.report(progress);
  }
  display.done();
  return text;
}

const fetching = (done: number): Progress => ({
  phase: "toolchain",
  message: "Fetching Zig",
  done,
  total: 90e6,
  unit: "bytes",
});

const CLEAR = "\r\x1b[2K";

Deno.test("progress on a terminal rewrites one line, not more often than one can see", () => {
  const text = show(true, [[0, fetching(0)], [10, fetching(1e6)], [100, fetching(45e6)]]);
  assert.equal(
    text,
    `${CLEAR}Fetching Zig 0 % (0 B of 90.0 MB)${CLEAR}Fetching Zig 50 % (45.0 MB of 90.0 MB)${CLEAR}`,
  );
});

Deno.test("progress explains a long phase once", () => {
  const text = show(true, [[0, fetching(0)], [400, fetching(9e6)], [800, fetching(18e6)]]);
  assert.equal(
    text.match(/First run: fetching the Zig compiler \(a download of about 90 MB\), once\n/g)
      ?.length,
    1,
  );
});

Deno.test("progress never wraps a line, nor divides by nothing", () => {
  const long: Progress = { phase: "load", message: "x".repeat(80) };
  assert.equal(show(true, [[0, long]]), `${CLEAR}${"x".repeat(49)}${CLEAR}`);
  const unknown: Progress = {
    phase: "load",
    message: "Reading",
    done: 3,
    total: 0,
    unit: "layers",
  };
  assert.equal(show(true, [[0, unknown]]), `${CLEAR}Reading 3 layers${CLEAR}`);
});

Deno.test("progress in a log is a line a long phase and one every ten seconds", () => {
  const text = show(false, [
    [0, fetching(0)],
    [9_000, fetching(1e6)],
    [11_000, fetching(45e6)],
    [12_000, { phase: "load", message: "Loading" }],
    [13_000, { phase: "compile", message: "Compiling avx2" }],
  ]);
  assert.equal(
    text,
    "First run: fetching the Zig compiler (a download of about 90 MB), once\nFetching Zig 0 % (0 B of 90.0 MB)\n" +
      "Fetching Zig 50 % (45.0 MB of 90.0 MB)\n" +
      "First run with this model on this CPU: compiling its kernels, once\nCompiling avx2\n",
  );
});

Deno.test("progress --quiet shows nothing", () => {
  assert.equal(show(true, [[0, fetching(0)], [900, fetching(1)]], true), "");
  assert.equal(show(false, [[0, fetching(0)]], true), "");
});
