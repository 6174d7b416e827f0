import assert from "node:assert/strict";
import type { BenchOptions, BenchReport } from "../runtime/reports.ts";
import { BENCH_REPORT, MACHINE_REPORT, run } from "./test_helpers.ts";

/** Runs `bench` with an engine that gives this report, and tells what it was asked. */
async function bench(args: string, report: BenchReport = BENCH_REPORT) {
  let given: Partial<BenchOptions> = {};
  const engine = {
    runBench(options: BenchOptions) {
      given = options;
      return Promise.resolve(report);
    },
  };
  const ended = await run(["bench", ...args.split(" ").filter(Boolean)], { engine });
  return { ...ended, given };
}

Deno.test("bench prints rates, bytes and the share of the memory's peak", async () => {
  const { stdout } = await bench("--shape bitnet-2b-4t");
  assert.match(stdout, /prefill 128 {16}123 {2}1\.20\ndecode 32 after 4096 {6}45\.6 {2}0\.30\n/);
  assert.match(stdout, /keys and values read +162 MB of int8 a token\n/);
  assert.match(stdout, /speed kept after 4096 +76\.0 %\n.* 28\.0 GB\/s, 90\.3 % of the peak\n/);
  assert.match(stdout, /19\.0 GB\/s, 61\.3 % of the peak/);
  assert.match(
    stdout,
    /ternary_linear {2}2560 {2}2560 {2}lookup9 {2}avx512 +1\.78 {2}default: not tuned\n/,
  );
  assert.doesNotMatch(stdout, /sequences|phase/);
});

Deno.test("bench passes its flags on", async () => {
  const args = "--shape 100b -p 7 -n 8 -t 2 -r 4 --kernels portable --profile --batch 1,2,16" +
    " --kv-type f16 --context 99";
  const { code, given } = await bench(args);
  assert.equal(code, 0);
  const { onProgress: _, signal: __, ...options } = given;
  assert.deepEqual(options, {
    shape: "100b",
    promptTokens: 7,
    genTokens: 8,
    threads: 2,
    repeat: 4,
    kernels: "portable",
    profile: true,
    batch: [1, 2, 16],
    kvType: "f16",
    context: 99,
  });
});

Deno.test("bench prints each batch beside its limits", async () => {
  const batch = {
    sequences: 4,
    stepSeconds: 0.0321,
    tokensPerSecond: 124.6,
    bytesPerStep: 1e9,
    memorySeconds: 0.03,
    arithmeticSeconds: 0.02,
    ratio: 1.07,
    ternaryMacsPerSecondPerThread: 1e11,
  };
  const unknown = { ...batch, arithmeticSeconds: null };
  const { stdout } = await bench("--batch 4,4", { ...BENCH_REPORT, batches: [batch, unknown] });
  assert.match(stdout, /^ +4 +125 +32\.1 +30\.0 +20\.0 +1\.07$/m);
  assert.match(stdout, /^ +4 +125 +32\.1 +30\.0 +- +1\.07$/m);
});

Deno.test("bench prints the phases of prefill and decode", async () => {
  const phase = {
    phase: "gateUp",
    kind: "linears",
    seconds: 0.8,
    waitSeconds: 0.1,
    share: 0.8,
    bytes: 8e9,
    bytesPerSecond: 10e9,
    macs: 80e9,
    macsPerSecond: 100e9,
  } as const;
  const decode = {
    steps: 100,
    tokens: 100,
    seconds: 1,
    restShare: 0.3,
    waitShare: 0.1,
    phases: [phase],
  };
  const profile = { decode, prefill: { ...decode, tokens: 5000 } };
  const { stdout } = await bench("--profile", { ...BENCH_REPORT, profile });
  assert.match(
    stdout,
    /Decode, 100 steps, 100 tokens: 30\.0 % outside of linears, attention and head, of which 10\.0 % waiting/,
  );
  assert.match(stdout, /Prefill, 100 steps, 5000 tokens/);
  assert.match(stdout, /^gateUp +8\.00 +1\.00 +80\.0 % +80\.0 MB +10\.0 +100$/m);
});

Deno.test("bench refuses batches that are none", async () => {
  for (const list of ["0", "1,,2", "1,x", "-1", "513", "1.5"]) {
    const { code, stderr } = await bench(`--batch ${list}`);
    assert.equal(code, 2, list);
    assert.match(stderr, /Cannot use --batch .*: give a whole number/, list);
  }
});

Deno.test("bench prints energy, or why there is none", async () => {
  const phase = {
    joulesPerToken: 0.75,
    packageJoulesPerToken: 0.5,
    dramJoulesPerToken: 0.25,
    platformJoulesPerToken: null,
    watts: 30,
  };
  const domains = [{ name: "package-0", kind: "package" }, {
    name: "dram-0",
    kind: "dram",
  }] as const;
  const energy = { available: true, domains, prefill: phase, decode: phase } as const;
  const { stdout } = await bench("--energy", { ...BENCH_REPORT, energy });
  assert.match(stdout, /^decode +0\.7500 +0\.5000 +0\.2500 +- +30\.0$/m);
  assert.match(stdout, /whatever else runs on it: package-0, dram-0\n/);
  const none = { available: false, reason: "there are no counters", remedy: "buy some" } as const;
  const without = await bench("--energy", { ...BENCH_REPORT, energy: none });
  assert.match(without.stdout, /\nNo energy is told as there are no counters: buy some\n/);
});

Deno.test("bench prints prices, and refuses what is no price", async () => {
  const cost = {
    eurPerHour: 0.004,
    promptEurPerMillionTokens: 0.0123,
    outputEurPerMillionTokens: 1.234,
    batches: [{ sequences: 8, outputEurPerMillionTokens: 0.5 }],
  };
  const { stdout, given } = await bench("--cost 0.004", { ...BENCH_REPORT, cost });
  assert.equal(given.cost, 0.004);
  assert.match(stdout, /A million tokens at 0\.004 EUR an hour:\nprompt +0\.0123 EUR\n/);
  assert.match(stdout, /output +1\.23 EUR\noutput, 8 sequences +0\.50 EUR\n/);
  for (const value of ["0", "-1", "x", "1e7", "Infinity", "NaN", "1,5"]) {
    const { code, stderr } = await bench(`--cost ${value}`);
    assert.equal(code, 2, value);
    assert.match(stderr, /Cannot use --cost .*: give a number above 0 to 1000000/, value);
  }
});

Deno.test("bench report passes its own flags on, not those of bench", async () => {
  const given: unknown[] = [];
  const engine = {
    reportMachine(files: unknown, options: { onProgress?: unknown; signal?: unknown }) {
      const { onProgress: _, signal: __, ...rest } = options;
      given.push(files, rest);
      return Promise.resolve(MACHINE_REPORT);
    },
  };
  const args = "bench report -o there --shape bitnet-700m -r 7 -t 1,4 --peers p.json --batch 2";
  const { code, stdout } = await run(args.split(" "), { engine });
  assert.equal(code, 0);
  assert.equal(stdout, "there/report.md\n");
  const [{ version, ...files }, options] = given as [Record<string, string>, unknown];
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert.deepEqual(files, { out: "there", peers: "p.json" });
  assert.deepEqual(options, {
    shape: "bitnet-700m",
    promptTokens: 128,
    genTokens: 8,
    repeat: 7,
    batch: [2],
    threads: [1, 4],
  });
  const json = await run(["bench", "report", "--json"], { engine });
  assert.deepEqual(JSON.parse(json.stdout), MACHINE_REPORT);
});
