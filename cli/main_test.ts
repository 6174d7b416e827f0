import assert from "node:assert/strict";
import { run } from "./test_helpers.ts";

const COMMANDS = [
  "generate",
  "chat",
  "logits",
  "tokenize",
  "detokenize",
  "perplexity",
  "bench",
  "kernels list",
  "kernels show",
  "kernels clear",
  "doctor",
  "inspect",
].map((name) => name.split(" "));

/** Flags without which a command complains of nothing else. */
const REQUIRED: Record<string, string[]> = { logits: ["--ids", "1"], perplexity: ["--file", "f"] };

for (const name of COMMANDS) {
  Deno.test(`${name.join(" ")} --help is on standard output, with --json and exit code 0`, async () => {
    const { code, stdout, stderr } = await run([...name, "--help"]);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    assert.ok(stdout.startsWith(`Usage: trilith ${name.join(" ")}`), stdout);
    assert.ok(stdout.includes("--json"));
  });

  Deno.test(`${name.join(" ")} refuses an unknown flag in one line with exit code 2`, async () => {
    await assertUsage(
      [...name, ...(REQUIRED[name[0]] ?? []), "--bogus"],
      /^error: Unknown option '--bogus'\n$/,
    );
  });
}

for (const name of COMMANDS.filter(([first]) => first !== "kernels")) {
  Deno.test(`${name[0]} --help has examples`, async () => {
    assert.match((await run([...name, "--help"])).stdout, /Examples:\n {2}.*trilith/);
  });
}

async function assertUsage(args: string[], line: RegExp, scene = {}): Promise<void> {
  const { code, stdout, stderr } = await run(args, scene);
  assert.match(stderr, line);
  assert.match(stderr, /^[^\n]+\n$/, "one line");
  assert.equal(stdout, "");
  assert.equal(code, 2);
}

const WRONG: [args: string[], line: RegExp][] = [
  [["genrate"], /Unknown command 'genrate' \(Did you mean generate\?\)/],
  [["generate", "x", "--temprature", "1"], /Did you mean --temperature\?/],
  [["generate", "x", "--top-k", "1.5"], /--top-k 1\.5: give a whole number from 0/],
  [["generate", "x", "--top-k", ""], /--top-k "": /],
  [["generate", "x", "--threads", "0"], /--threads 0: give a whole number from 1/],
  [["generate", "x", "--seed", "abc"], /--seed abc: give a whole number from 0/],
  [["generate", "x", "--seed", "-1"], /--seed -1: /],
  [["generate", "x", "--seed", "1e3"], /--seed 1e3: /],
  [["generate", "x", "--top-p", "1.01"], /--top-p 1\.01: give a number from 0 to 1/],
  [["generate", "x", "--temperature", "NaN"], /--temperature NaN: /],
  [["generate", "x", "--temperature", "Infinity"], /--temperature Infinity: /],
  [["generate", "x", "--temperature", "0x10"], /--temperature 0x10: /],
  [["generate", "x", "--repeat-penalty", "0"], /--repeat-penalty 0: give a number above 0/],
  [["generate", "x", "--max-tokens", "-5"], /--max-tokens -5: /],
  [["generate", "x", "--kernels", "sse"], /--kernels .*'sse'.*avx512/],
  [["generate", "x", "--speculate", "0"], /--speculate 0: give a whole number from 1 to 15/],
  [["generate", "x", "--speculate", "16"], /--speculate 16: give a whole number from 1 to 15/],
  [["generate", "x", "--speculate", "on"], /--speculate on: give auto, off or a whole number/],
  [["chat", "--head", "half"], /--head .*'half'.*auto, full/],
  [["generate", "x", "--kv-type", "q8"], /'q8'.*f32, f16, int8/],
  [["bench", "--kv-type", "int4"], /'int4'.*f32, f16, int8/],
  [["bench", "--context", "-1"], /--context -1: /],
  [["generate", "x", "--logit-bias", "5"], /--logit-bias 5: give ID=BIAS/],
  [["generate", "x", "--logit-bias", "5=x"], /--logit-bias "5=x"/],
  [["generate", "x", "--stop", ""], /empty --stop/],
  [["generate", "--prompt-ids", "1,x"], /--prompt-ids "1,x": give token ids/],
  [["generate", "--prompt-ids", ""], /--prompt-ids ""/],
  [["generate", "x", "y"], /Too many arguments/],
  [["generate", "x", "--prompt-ids", "1"], /several prompts/],
  [["generate", "--model", "m"], /without a prompt/],
  [
    ["generate", "--prompt-file", "no/such.txt"],
    /--prompt-file no\/such\.txt: there is no such file/,
  ],
  [["generate", "long enough", "--ctx", "4"], /12 tokens: the context holds 4/],
  [["logits"], /Required option '--ids <ids>' not specified/],
  [["logits", "--ids", "1", "--positions", "first"], /Allowed choices are all, last/],
  [["detokenize"], /without ids/],
  [["detokenize", "--ids", "999"], /id 999/],
  [["detokenize", "--ids", "1", "--jsonl"], /--ids with --jsonl/],
  [["tokenize", "x", "--jsonl"], /a text with --jsonl/],
  [["tokenize", "x", "--model", "a", "--tokenizer", "b"], /cannot be used with/],
  [["perplexity", "--file", "no/such.txt"], /--file no\/such\.txt/],
  [["bench", "--shape", "bitnet"], /Allowed choices are bitnet-2b-4t/],
  [["bench", "--shape", "100b", "--model", "m"], /cannot be used with/],
  [["bench", "--repeat", "0"], /--repeat 0/],
  [["kernels", "lst"], /Unknown command 'lst' \(Did you mean list\?\)/],
  [["kernels", "show", "--isa", "sse"], /'sse'/],
];

for (const [args, line] of WRONG) {
  Deno.test(`trilith ${args.join(" ")}: one line and exit code 2`, () => assertUsage(args, line));
}

Deno.test("trilith without a command prints its help on standard error with exit code 2", async () => {
  const { code, stdout, stderr } = await run([]);
  assert.equal(code, 2);
  assert.equal(stdout, "");
  assert.match(stderr, /^Usage: trilith/);
});

Deno.test("trilith --help and --version are on standard output", async () => {
  assert.match((await run(["--help"])).stdout, /^Usage: trilith/);
  const { code, stdout } = await run(["--version"]);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(code, 0);
});

function failing(error: unknown) {
  return { engine: { loadModel: () => Promise.reject(error) } };
}

Deno.test("an error is one line with exit code 1, and TRILITH_DEBUG shows where it came from", async () => {
  const scene = failing(new Error("Cannot open model:\n  it is damaged", { cause: Error("EIO") }));
  const { code, stderr } = await run(["generate", "x"], scene);
  assert.equal(stderr, "error: Cannot open model: it is damaged\n");
  assert.equal(code, 1);
  const debug = await run(["generate", "x"], { ...scene, environment: { TRILITH_DEBUG: "1" } });
  assert.match(debug.stderr, /main_test\.ts[^]*Caused by: Error: EIO/);
});

Deno.test("what a model refuses to be loaded with is wrong usage", async () => {
  const range = await run(["generate", "x"], failing(new RangeError("Cannot use 999 threads")));
  assert.equal(range.code, 2);
  const usage = Object.assign(new Error("Cannot use AVX-512"), { name: "UsageError" });
  assert.equal((await run(["generate", "x"], failing(usage))).code, 2);
  assert.equal((await run(["generate", "x"], failing("text"))).stderr, "error: Text\n");
});

Deno.test("Deno's error for a missing permission names the flag", async () => {
  const error = Object.assign(
    new Error('Requires run access to "zig", run again with the --allow-run flag'),
    { name: "NotCapable" },
  );
  const { stderr, code } = await run(["generate", "x"], failing(error));
  assert.equal(
    stderr,
    'error: Cannot go on without Deno\'s permission as it requires run access to "zig": ' +
      "add --allow-run to `deno run`, or -A for all\n",
  );
  assert.equal(code, 1);
});

Deno.test("a reader that has gone ends the command quietly", async () => {
  const { code, stderr, models } = await run(["generate", "a"], { stdoutLimit: 3 });
  assert.equal(stderr, "");
  assert.equal(code, 0);
  assert.ok(models[0].isDisposed);
});
