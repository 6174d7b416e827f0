/** logits, tokenize, detokenize, perplexity, compare, bench, kernels, doctor and inspect. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BOS } from "./fake_model.ts";
import { shortFloat32 } from "./format.ts";
import { BENCH_REPORT, DOCTOR_REPORT, INSPECT_REPORT, run } from "./test_helpers.ts";

async function json(args: string[], scene = {}) {
  const { stdout, code } = await run([...args, "--json"], scene);
  assert.equal(code, 0);
  assert.match(stdout, /^[^\n]*\n$/, "one document on one line");
  return JSON.parse(stdout);
}

Deno.test("logits --json has every position's float32 logits, exactly", async () => {
  const { positions } = await json(["logits", "--ids", "97,98"]);
  assert.deepEqual(positions.map(({ position }: { position: number }) => position), [0, 1]);
  for (const { logits } of positions) {
    assert.equal(logits.length, 258);
    for (const logit of logits) assert.equal(Math.fround(logit), logit);
  }
  assert.equal(positions[0].logits[98], Math.fround(1.1));
});

Deno.test("logits --positions last, --chunk", async () => {
  const { positions } = await json(["logits", "--ids", "97,98", "--positions", "last"]);
  assert.deepEqual(positions.map(({ position }: { position: number }) => position), [1]);
  const { loads } = await run(["logits", "--ids", "97", "--chunk", "16"]);
  assert.equal(loads[0].options.maxBatchTokens, 16);
});

Deno.test("logits: Ctrl-C leaves a whole document with the positions that there were", async () => {
  const ids = ["logits", "--ids", "97,98,99", "--json"];
  const { code, stdout } = await run(ids, { interruptAfter: '"position":1' });
  assert.equal(code, 130);
  assert.equal(JSON.parse(stdout).positions.length, 2);
});

Deno.test("logits refuses NaN, and keeps -0", async () => {
  const engineOf = (value: number) => ({
    loadModel: () =>
      Promise.resolve({
        async *logits() {
          yield await Promise.resolve({ position: 0, logits: Float32Array.of(1, value) });
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
        // deno-lint-ignore no-explicit-any
      } as any),
  });
  const args = ["logits", "--ids", "1", "--json"];
  const zero = await run(args, { engine: engineOf(-0) });
  assert.equal(zero.stdout, '{"positions":[{"position":0,"logits":[1,-0]}]}\n');
  const nan = await run(args, { engine: engineOf(NaN) });
  assert.equal(nan.code, 1);
  assert.match(nan.stderr, /token 1 has NaN/);
});

Deno.test("logits without --json shows the ten best tokens with their probabilities", async () => {
  const { stdout } = await run(["logits", "--ids", "97"]);
  const lines = stdout.trim().split("\n");
  assert.equal(lines[0], "After position 0");
  assert.equal(lines.length, 12);
  assert.match(lines[2], /^98 {2}"b" +1\.1000 +8\d\.\d\d %$/);
});

Deno.test("tokenize --json and its flags", async () => {
  assert.deepEqual(await json(["tokenize", "ab"]), {
    ids: [BOS, 97, 98],
    tokens: ["<bos>", "a", "b"],
  });
  assert.deepEqual((await json(["tokenize", "ab", "--no-bos"])).ids, [97, 98]);
  assert.deepEqual((await json(["tokenize", "<bos>", "--no-bos"])).ids, [BOS]);
  assert.equal((await json(["tokenize", "<bos>", "--no-bos", "--no-special"])).ids.length, 5);
  assert.deepEqual((await json(["tokenize", "--no-bos"], { stdin: ["a\n"] })).ids, [97, 10]);
});

Deno.test("tokenize shows a table on request of a person", async () => {
  assert.equal((await run(["tokenize", "ab"])).stdout, " id  token\n256  <bos>\n 97  a\n 98  b\n");
});

Deno.test("tokenize loads no model", async () => {
  const engine = { loadModel: () => Promise.reject(new Error("loaded")) };
  assert.equal((await run(["tokenize", "x"], { engine })).code, 0);
  assert.equal((await run(["detokenize", "--ids", "97"], { engine })).code, 0);
});

Deno.test("tokenize --tokenizer and --model name the tokenizer's place", async () => {
  const paths: (string | undefined)[] = [];
  const { engine } = await import("./test_helpers.ts").then(({ fakeEngine }) => fakeEngine({}));
  const spy = {
    loadTokenizer(path: string | undefined) {
      paths.push(path);
      return engine.loadTokenizer(path);
    },
  };
  for (
    const flags of [[], ["--tokenizer", "t.json"], ["-m", "folder"], ["-m", "a/model.safetensors"]]
  ) {
    await run(["tokenize", "x", ...flags], { engine: spy });
  }
  assert.deepEqual(paths, [undefined, "t.json", "folder", "a"]);
});

Deno.test("tokenize --jsonl answers line by line, wherever the chunks end", async () => {
  const { stdout, code } = await run(["tokenize", "--jsonl", "--no-bos"], {
    stdin: ['"a"\n"', 'b\\n"\r\n""', "\n", '"c"'],
  });
  assert.equal(stdout, "[97]\n[98,10]\n[]\n[99]\n");
  assert.equal(code, 0);
});

Deno.test("tokenize --jsonl names the line that it can't read", async () => {
  const bad = await run(["tokenize", "--jsonl"], { stdin: ['"a"\nb\n'] });
  assert.equal(bad.stderr, 'error: Cannot read line 2 of standard input, "b": it must be JSON\n');
  assert.equal(bad.code, 1);
  const wrong = await run(["tokenize", "--jsonl"], { stdin: ["[1]\n"] });
  assert.match(wrong.stderr, /line 1 .*"\[1\]": it must be a JSON string/);
});

Deno.test("detokenize gives the text back", async () => {
  const ids = ["--ids", `${BOS},97,98`];
  assert.deepEqual(await json(["detokenize", ...ids]), { text: "<bos>ab" });
  assert.deepEqual(await json(["detokenize", ...ids, "--no-special"]), { text: "ab" });
  assert.equal((await run(["detokenize", ...ids])).stdout, "<bos>ab\n");
  const lines = await run(["detokenize", "--jsonl"], { stdin: ["[97]\n[98,10]\n"] });
  assert.equal(lines.stdout, '"a"\n"b\\n"\n');
  const bad = await run(["detokenize", "--jsonl"], { stdin: ["[97.5]\n"] });
  assert.match(bad.stderr, /line 1 .*array of token ids/);
});

Deno.test("perplexity reports progress and the estimate", async () => {
  const folder = mkdtempSync(join(tmpdir(), "trilith-test-"));
  try {
    const file = join(folder, "text.txt");
    writeFileSync(file, "abcdefghijklmnop".repeat(4));
    const args = ["perplexity", "--file", file, "--ctx", "16"];
    const result = await json(args);
    assert.deepEqual(Object.keys(result), [
      "perplexity",
      "standardError",
      "chunkStandardError",
      "tokens",
      "bitsPerByte",
      "chunks",
    ]);
    assert.equal(result.chunks, 4);
    assert.equal(result.tokens, 4 * 7);
    const { stdout, stderr } = await run(args);
    const figures =
      /^Perplexity \d+\.\d{4} \+\/- \d+\.\d{5} \(by chunks \+\/- [\d.]+\), .* 28 tokens in 4/;
    assert.match(stdout, figures);
    assert.match(stderr, /^\[1\/4\] \d+ s left \d+\.\d{4} \+\/- \d+\.\d{4}\n(.*\n){2}\[4\/4\] \d/);
    const one = await run([...args, "--chunks", "1"]);
    assert.match(one.stdout, /^[^(]* 7 tokens in 1 chunks\n$/);
    const strided = await json([...args, "--stride", "5"]);
    assert.equal(strided.tokens, 5 * strided.chunks);
    const short = await run(["perplexity", "--file", file, "--ctx", "100"]);
    assert.match(short.stderr, /chunk of 100 tokens: it has 65/);
    assert.equal(short.code, 2);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

Deno.test("perplexity reads standard input as it comes, without knowing its end", async () => {
  const args = ["perplexity", "--file", "-", "--ctx", "16"];
  const { stderr, code } = await run(args, { stdin: ["abcdefghijklm", "nop".repeat(20)] });
  assert.equal(code, 0);
  assert.match(stderr, /^\[1\/4\]/);
});

Deno.test("embed takes texts from arguments, lines of a file and of standard input", async () => {
  const { embeddings, model, promptTokens } = await json(["embed", "ab", "c"]);
  assert.deepEqual([model, promptTokens], ["fake", 3]);
  assert.deepEqual(embeddings.map(([first]: number[]) => first), [2, 1]);
  const piped = await run(["embed"], { stdin: ["abc\r\n", "\nd\n"] });
  assert.match(piped.stdout, /^3 0\.37\S*\n1 0\.39\S*\n$/);
  const [, shown] = piped.stdout.split(/[ \n]/).map(Number);
  assert.deepEqual([shown, String(shown).length <= 12], [shortFloat32(shown), true]);
  const none = await run(["embed"], { stdin: ["\n"] });
  assert.equal(none.code, 2);
  assert.match(none.stderr, /Cannot embed without a text/);
  assert.equal((await run(["embed", "a", "--file", "-"])).code, 2);
  const prompted = await json(["embed", "ab", "--prompt-name", "query"]);
  assert.equal(prompted.embeddings[0][0], "find: ab".length);
  assert.equal((await json(["embed", "ab", "--prompt", "> "])).embeddings[0][0], 4);
  const two = await run(["embed", "ab", "--prompt", "> ", "--prompt-name", "query"]);
  assert.deepEqual([two.code, /Cannot use two prompts/.test(two.stderr)], [2, true]);
});

Deno.test("numbers are printed in as few digits as give the same float32 back", () => {
  const exact = [
    0,
    1,
    0.1,
    1 / 3,
    16777217,
    1e-45,
    3.4028234663852886e38,
    -0.05253301560878754,
  ];
  for (const value of exact.map(Math.fround)) {
    const short = shortFloat32(value);
    assert.equal(Math.fround(short), value);
    assert.ok(String(short).replace(/e.*|[-.]/g, "").replace(/^0+|0+$/g, "").length <= 9);
  }
  assert.equal(shortFloat32(Math.fround(0.1)), 0.1);
});

Deno.test("compare loads both sides with their own flags, and says what is lossless", async () => {
  const args = ["compare", "m", "--kv-type", "f16", "--b-kernels", "reference", "--ctx", "64"];
  const { stdout, loads, models, code } = await run([...args, "--chunks", "2", "--scheme", "x"]);
  assert.equal(code, 0);
  assert.deepEqual(loads.map(({ path }) => path), ["m", "m"]);
  const chosen = loads.map(({ options: { kernels, scheme, kvType } }) => [kernels, scheme, kvType]);
  assert.deepEqual(chosen, [[undefined, "x", "f16"], ["reference", undefined, "f16"]]);
  assert.match(stdout, /the same bits +62 of 62: lossless\n/);
  assert.match(stdout, /KL divergence +0 \+\/- 0 nats/);
  assert.ok(models.every(({ isDisposed }) => isDisposed));
  const others = ["--b-kv-type", "int8", "--b-i2s-layout", "arm", "--i2s-layout", "rows4"];
  const two = await run(["compare", "m", "n", "--chunks", "1", "--json", ...others]);
  assert.deepEqual(two.loads.map(({ path }) => path), ["m", "n"]);
  assert.deepEqual(two.loads.map(({ options }) => options.i2sLayout), ["rows4", "arm"]);
  assert.equal(two.loads[1].options.kvType, "int8");
  assert.equal(JSON.parse(two.stdout).topAgreement.mean, 1);
});

Deno.test("compare refuses a comparison of nothing, and a file that is not there", async () => {
  const nothing = await run(["compare", "m"]);
  assert.equal(nothing.code, 2);
  assert.match(nothing.stderr, /name a second model, or give --b-kernels/);
  const missing = await run(["compare", "m", "n", "--file", "/no/such/file"]);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /--file \/no\/such\/file: there is no such file/);
});

Deno.test("bench, doctor, inspect and kernels --json print the reports as they are", async () => {
  assert.deepEqual(await json(["bench"]), BENCH_REPORT);
  assert.deepEqual(await json(["inspect", "m"]), INSPECT_REPORT);
  assert.equal((await json(["kernels", "list"]))[0].isa, "avx2");
  assert.deepEqual(await json(["kernels", "show"]), [{
    name: "step",
    isa: "avx2",
    source: "// zig",
  }]);
  assert.deepEqual(await json(["kernels", "clear"]), {
    directory: "/kernels",
    removed: 3,
    bytes: 210_000,
    removedTunings: 0,
  });
  assert.deepEqual(JSON.parse((await run(["doctor", "--json"])).stdout), DOCTOR_REPORT);
});

Deno.test("doctor says what to do, and fails where there is a problem", async () => {
  const { stdout, code } = await run(["doctor"]);
  assert.equal(code, 1);
  assert.match(stdout, /^ok {7}CPU {7}8 cores with AVX-512\nproblem {2}compiler {2}no Zig\n/);
  assert.match(stdout, /\n {19,}pip install ziglang\n$/);
});

Deno.test("inspect says how an embedding model makes vectors, and its prompts", async () => {
  const prompts = { texts: { query: "q: ", document: "" }, defaultName: "query", arePooled: true };
  const embedding = { pooling: "last", normalize: true, prompts } as const;
  const inspectModel = () => Promise.resolve({ ...INSPECT_REPORT, embedding });
  const { stdout } = await run(["inspect"], { engine: { inspectModel } });
  assert.match(
    stdout,
    /embed: vectors of length 1, the last token's; prompts query, document \(default: query\)/,
  );
});

Deno.test("inspect prints shapes, tensors and memory", async () => {
  const { stdout } = await run(["inspect"]);
  assert.match(stdout, /parameters +1,234,567/);
  assert.match(stdout, /hiddenSize +128/);
  assert.match(stdout, /U8 +7 +1,000,000 +250 kB/);
});

Deno.test("kernels show prints sources or assembly", async () => {
  assert.equal((await run(["kernels", "show"])).stdout, "// zig\n");
  assert.equal((await run(["kernels", "show", "--asm"])).stdout, "vpdpbusd\n");
  assert.match((await run(["kernels", "list"])).stdout, /0123456789abcdef {2}avx2 {2}70\.0 kB/);
  assert.match((await run(["kernels", "clear"])).stdout, /Deleted 3 kernels, 210 kB/);
  const none = await run(["kernels", "list"], {
    engine: { listKernels: () => Promise.resolve([]) },
  });
  assert.match(none.stderr, /No kernels/);
});
