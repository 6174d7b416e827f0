import assert from "node:assert/strict";
import type { LoadOptions } from "../runtime/types.ts";
import type { TuneOptions } from "../runtime/reports.ts";
import { FakeModel } from "./fake_model.ts";
import { run, TUNE_REPORT } from "./test_helpers.ts";

Deno.test("tune prints the choice, all kernels by their ratio, and why others were not measured", async () => {
  const { stdout, code } = await run(["tune"]);
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^bitnet-2b-4t on Some CPU, 2 threads: avx2-multiply\n133\.6 G weights\/s, /,
  );
  assert.match(stdout, /\navx2-multiply +2\.00 +15\.6 +5\.30 +87\.0 % +0\.878 +1\.2 % {2}chosen\n/);
  assert.match(stdout, /chosen\navx2-other .* 1\.000 .* slower\n/);
  assert.match(stdout, /\navx2-broken was rejected: avx2-broken stops with signal 4\n/);
  assert.match(
    stdout,
    /\n2560 {2}2560 +1 {2}56\.8 +115 {2}5\.0 %\n2560 {2}2560 +4 {2}60\.0 +437 {2}3\.0 %\n/,
  );
  assert.match(
    stdout,
    /\n +1 +15\.7 +5\.40 {2}enough\n +2 +15\.6 +5\.30\nMore threads are no quicker: /,
  );
  assert.match(stdout, /\nTook 4\.20 s, kept in \/tunings\/[0-9a-f]{32}-2\.json\n$/);
});

Deno.test("tune tells that the machine was busy", async () => {
  assert.doesNotMatch((await run(["tune"])).stdout, /busy/);
  const report = structuredClone(TUNE_REPORT);
  report.findings[0].figures!.measurements[0].spread = 0.5;
  const engine = { tuneModel: () => Promise.resolve(report) };
  assert.match((await run(["tune"], { engine })).stdout, /\nThe machine was busy: tune again /);
});

Deno.test("tune --json prints the report as it is, and flags are passed on", async () => {
  let given: TuneOptions = {};
  const engine = {
    tuneModel(options: TuneOptions) {
      given = options;
      return Promise.resolve(TUNE_REPORT);
    },
  };
  const args = "tune --shape bitnet-2b-4t -t 3 --scheme multiply --seconds 9 --json".split(" ");
  const { stdout } = await run([...args, "--prompt-tokens-per-token", "2.5"], { engine });
  assert.deepEqual(JSON.parse(stdout), TUNE_REPORT);
  const { shape, threads, scheme, seconds, promptTokensPerToken } = given;
  assert.deepEqual([shape, threads, scheme, seconds, promptTokensPerToken], [
    "bitnet-2b-4t",
    3,
    "multiply",
    9,
    2.5,
  ]);
});

Deno.test("tune refuses what makes no sense, as wrong usage", async () => {
  const wrong = async (...args: string[]) => {
    const { code, stderr } = await run(["tune", ...args]);
    assert.equal(code, 2);
    return stderr;
  };
  assert.match(await wrong("--shape", "tiny"), /'--shape <name>' argument 'tiny' is invalid/);
  assert.match(await wrong("--seconds", "0"), /Cannot use --seconds 0/);
  assert.match(await wrong("--prompt-tokens-per-token", "-1"), /--prompt-tokens-per-token -1/);
  assert.match(await wrong("--model", "m", "--shape", "100b"), /cannot be used with/);
  const engine = { tuneModel: () => Promise.reject(new RangeError("Cannot use --scheme x")) };
  assert.equal((await run(["tune"], { engine })).code, 2);
});

Deno.test("models are tuned at first use unless --no-tune, with the scheme that was asked for", async () => {
  const options = async (...args: string[]) =>
    (await run(["generate", "w", ...args])).loads[0].options;
  assert.equal((await options()).tuneAtFirstUse, true);
  assert.equal((await options("--no-tune")).tuneAtFirstUse, false);
  assert.equal((await options("--scheme", "multiply")).scheme, "multiply");
});

/** Loads a model in steps: `phases` are reported, and Ctrl-C comes in between. */
function loadingEngine(phases: readonly ("tune" | "load")[], seen: { skipped?: boolean }) {
  return {
    async loadModel(_path: string | undefined, options: LoadOptions) {
      for (const phase of phases) {
        options.onProgress!({ phase, message: phase });
        await new Promise((resolve) => setTimeout(resolve, 60));
        options.signal!.throwIfAborted();
      }
      seen.skipped = options.tuneSignal!.aborted;
      return new FakeModel({}, options);
    },
  };
}

Deno.test("Ctrl-C while the machine is tuned ends the tuning alone; later it ends the command", async () => {
  const seen: { skipped?: boolean } = {};
  const scene = (phases: readonly ("tune" | "load")[]) => ({
    interruptAfterMs: 30,
    engine: loadingEngine(phases, seen),
  });
  const skipped = await run(["generate", "w"], scene(["tune", "load"]));
  assert.deepEqual([skipped.code, skipped.stdout, seen.skipped], [0, "xyz\n", true]);
  assert.equal((await run(["generate", "w"], scene(["load", "tune"]))).code, 130);
});

Deno.test("kernels list shows what is tuned for what; kernels clear --tunings forgets it", async () => {
  const engine = {
    listTunings: () =>
      Promise.resolve([{
        type: "tuning" as const,
        id: TUNE_REPORT.key,
        model: "bit\x1bnet",
        threads: 2,
        cpu: "Some CPU",
        kernel: "avx2-multiply",
        why: "133.6 G weights/s",
        tunedAt: TUNE_REPORT.tunedAt,
        state: "in use" as const,
      }]),
    clearKernels: ({ tunings }: { tunings?: boolean }) =>
      Promise.resolve({ directory: "/k", removed: 0, bytes: 0, removedTunings: tunings ? 2 : 0 }),
  };
  const { stdout } = await run(["kernels", "list"], { engine });
  assert.match(
    stdout,
    /\nbit\ufffdnet +2 {2}avx2-multiply {2}in use {2}2026-01-02T03:04 {2}133\.6 G weights\/s\n$/,
  );
  const listed = JSON.parse((await run(["kernels", "list", "--json"], { engine })).stdout);
  assert.deepEqual(listed.map(({ type }: { type: string }) => type), ["library", "tuning"]);
  assert.match(
    (await run(["kernels", "clear", "--tunings"], { engine })).stdout,
    /\nDeleted 2 tunings\n$/,
  );
  assert.doesNotMatch((await run(["kernels", "clear"], { engine })).stdout, /tunings/);
});

Deno.test("statistics say that the kernels were tuned", async () => {
  const engine = {
    loadModel(_path: string | undefined, options: LoadOptions) {
      const model = new FakeModel({}, options);
      return Promise.resolve(Object.assign(model, { kernelReason: "tuned 2026-01-02: fast" }));
    },
  };
  const { stderr } = await run(["generate", "w"], { engine });
  assert.match(stderr, / · portable-multiply, tuned, 2 threads\n$/);
});
