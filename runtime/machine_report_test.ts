import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { ternaryKernel } from "../codegen/ternary_linear/spec.ts";
import { inFolder } from "../kernels/test_helpers.ts";
import { plain } from "./bench/machine/markdown.ts";
import { PEERS } from "./bench/machine/test_helpers.ts";
import { reportMachine } from "./machine_report.ts";

const OPTIONS = {
  shape: "bitnet-700m",
  promptTokens: 3,
  genTokens: 1,
  repeat: 1,
  batch: [1, 2],
  threads: [1, 2],
  kernels: "portable",
} as const;

const EFFORT = {
  streamedBytes: 1,
  peakBytes: 1 << 20,
  tokens: [1, 3],
  measure: { repeats: 1, atLeastMs: 0.01, withInputs: true },
  kernels: [ternaryKernel("portable")],
};

Deno.test("bench report measures this machine, and writes what it has measured", () =>
  inFolder(async (folder) => {
    const out = path.join(folder, "new", "report");
    const peers = path.join(folder, "peers.json");
    fs.writeFileSync(peers, JSON.stringify(PEERS));
    const report = await reportMachine({ out, peers, version: "1.2.3" }, OPTIONS, EFFORT);
    const names = ["model.svg", "peers_decode.svg", "peers_prefill.svg", "report.json"];
    assert.deepEqual(fs.readdirSync(out).sort(), [
      ...names,
      "report.md",
      "schemes.svg",
      "shapes.svg",
    ]);
    const read = (name: string) => fs.readFileSync(path.join(out, name), "utf8");
    assert.deepEqual(JSON.parse(read("report.json")), JSON.parse(JSON.stringify(report)));
    assert.deepEqual(report.peaks.map(({ threads }) => threads), [1, 2]);
    for (const peak of report.peaks) assert.ok(peak.bytesPerSecond > 0 && peak.macsPerSecond > 0);
    assert.deepEqual(report.schemes.map(({ tokens }) => tokens), [1, 3]);
    assert.equal(report.shapes.length, 4 * 2, "three shapes and the sketch, two numbers of tokens");
    for (const figure of [...report.schemes, ...report.shapes]) {
      const { seconds, macsPerSecond, n, k, tokens, macsPerByte, bytesPerSecond } = figure;
      assert.ok(seconds > 0);
      assert.equal(macsPerSecond, n * k * tokens / seconds);
      assert.ok(Math.abs(macsPerByte * bytesPerSecond / macsPerSecond - 1) < 1e-9);
    }
    const markdown = read("report.md");
    for (const [, picture] of markdown.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)) {
      assert.match(read(picture), /^<svg [^]*<\/svg>\n$/, picture);
    }
    assert.ok(markdown.includes(report.command));
    assert.match(
      report.command,
      /--shape bitnet-700m .*--batch 1,2 --threads 1,2 --kernels portable$/,
    );
    assert.match(markdown, /Some \\\| CPU/, "tables stay whole");
    assert.match(markdown, /Q4_0 \| does not run: unknown architecture &lt;x>/);
    for (const row of markdown.split("\n").filter((line) => line.startsWith("|"))) {
      assert.match(row, /^\|.*\|$/);
    }
  }));

Deno.test("bench report does not begin with peers that it can't read", () =>
  inFolder(async (folder) => {
    const files = { out: path.join(folder, "out"), peers: path.join(folder, "no"), version: "1" };
    await assert.rejects(reportMachine(files, OPTIONS, EFFORT), /there is no such file/);
    assert.ok(!fs.existsSync(files.out));
  }));

Deno.test("bench report does not begin where there is a file in the folder's place", () =>
  inFolder(async (folder) => {
    const out = path.join(folder, "out");
    fs.writeFileSync(out, "");
    const begun = reportMachine({ out, version: "1" }, OPTIONS, EFFORT);
    await assert.rejects(begun, /^RangeError: Cannot write a report into .*, use another --out$/);
  }));

Deno.test("markdown: texts of others stay texts", () => {
  assert.equal(
    plain("a|b\n<i>*x*</i> [l](u) `c`"),
    "a\\|b &lt;i>\\*x\\*&lt;/i> \\[l\\](u) \\`c\\`",
  );
});
