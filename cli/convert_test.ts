import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ConvertOptions } from "../runtime/convert/convert.ts";
import { CONVERT_REPORT, run } from "./test_helpers.ts";

/** Runs the command, and gives what the engine was asked for. */
async function converted(args: string[], report = CONVERT_REPORT) {
  const asked: { source: string; destination: string; options: ConvertOptions }[] = [];
  const engine = {
    locateModel: (text: string) => Promise.resolve(text.replace("hub/", "/cache/")),
    convertModel(source: string, destination: string, options: ConvertOptions) {
      asked.push({ source, destination, options });
      options.onNotice!("Somebody is writing");
      return Promise.resolve(report);
    },
  };
  return { ...await run(["convert", ...args], { engine }), asked };
}

Deno.test("convert hands its flags on", async () => {
  const { asked: [{ source, destination, options }], code } = await converted([
    ...["in", "out.gguf", "--type", "tq1_0", "--embedding-type", "f16", "--split-max-size", "1.5G"],
    ...["--pre", "qwen2", "--no-verify", "--force", "--quantize", "absmean"],
  ]);
  assert.equal(code, 0);
  assert.deepEqual([source, destination], ["in", "out.gguf"]);
  const { onProgress: _, onNotice: __, signal: ___, ...flags } = options;
  assert.deepEqual(flags, {
    type: "tq1_0",
    embeddingType: "f16",
    splitMaxBytes: 1_500_000_000,
    pre: "qwen2",
    verify: false,
    force: true,
    quantize: "absmean",
    perplexity: undefined,
  });
});

Deno.test("convert takes a name of the hub, and says what a person may want to know", async () => {
  const { asked: [{ source }], stderr } = await converted(["hub/model", "out.gguf"]);
  assert.equal(source, "/cache/model");
  assert.equal(stderr, "Somebody is writing\n");
  assert.equal((await converted(["hub/model", "out.gguf", "--quiet"])).stderr, "");
});

Deno.test("convert prints files, what was compared and what was lost", async () => {
  const { stdout } = await converted(["in", "out.gguf"], {
    ...CONVERT_REPORT,
    quantization: [{ tensor: "q", relativeError: 0.5, zeros: 0.31, scale: 0.02 }],
    perplexity: {
      before: { skipped: "it is large" },
      after: {
        perplexity: 12.5,
        standardError: 0.25,
        chunkStandardError: null,
        tokens: 10,
        bitsPerByte: 1,
        chunks: 1,
      },
    },
  });
  assert.match(
    stdout,
    /^\/models\/story\.gguf {2}2\.50 MB\nWrote 2\.50 MB, .* in tq2_0, in 1\.50 s\n/,
  );
  assert.match(stdout, /Read back: 7 ternary matrices and 3 others/);
  assert.match(stdout, /\nq +0\.5000 +31\.0 % +0\.020000\n/);
  assert.match(
    stdout,
    /before: not measured: it is large\nPerplexity after: 12\.5000 \+\/- 0\.2500\n/,
  );
});

Deno.test("convert --json prints the report as it is", async () => {
  const { stdout } = await converted(["in", "out.gguf", "--json"]);
  assert.deepEqual(JSON.parse(stdout), CONVERT_REPORT);
});

Deno.test("convert --perplexity reads the file as it goes, as often as it is asked to", async () => {
  const folder = mkdtempSync(join(tmpdir(), "trilith-test-"));
  try {
    const file = join(folder, "text.txt");
    writeFileSync(file, "Once");
    const flags = ["--perplexity", file, "--ctx", "64", "--chunks", "3"];
    const { asked } = await converted(["in", "out", ...flags]);
    const { text, ...options } = asked[0].options.perplexity!;
    assert.deepEqual(options, { chunkTokens: 64, chunks: 3 });
    assert.ok(typeof text === "object");
    assert.equal(text.bytes, 4);
    for (let i = 0; i < 2; i++) assert.deepEqual(await Array.fromAsync(text.parts), ["Once"]);
    const missing = await converted(["in", "out", "--perplexity", join(folder, "none")]);
    assert.equal(missing.code, 2);
    assert.match(missing.stderr, /Cannot read --perplexity .*none: there is no such file/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

for (
  const [args, message] of [
    [["in"], /Missing required argument 'destination'/],
    [["in", "out.gguf", "--type", "q4_0"], /--type/],
    [
      ["in", "out.gguf", "--split-max-size", "2X"],
      /--split-max-size "2X": give bytes such as 500M/,
    ],
    [["in", "out.gguf", "--split-max-size", "0"], /--split-max-size "0"/],
    [["in", "out.gguf", "--ctx", "4"], /--ctx 4/],
  ] as const
) {
  Deno.test(`convert ${args.join(" ")} is wrong usage`, async () => {
    const { code, stderr, asked } = await converted([...args]);
    assert.equal(code, 2);
    assert.match(stderr, message);
    assert.deepEqual(asked, []);
  });
}
