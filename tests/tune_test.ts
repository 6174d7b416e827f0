/** Tuning of the story model, for real: what is measured is kept, used, told, and survives bad company. */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { kernelName, TERNARY_KERNELS } from "../codegen/ternary_linear/spec.ts";
import { documentOf, errorLine, runCli, startCli } from "./cli_process.ts";
import { NATIVE_ISAS } from "./machine.ts";
import { withFolder } from "./safetensors_file.ts";

const GENERATE = [
  "generate",
  "Once upon a time",
  "--max-tokens",
  "8",
  "--temperature",
  "0",
  "--json",
];

/** As on a person's machine, wherever the tests run. */
const ENV = { CI: "", TRILITH_TUNE: "" };

/** Kernels are compiled once for all tests of this file; each gets a copy. */
const warmCache = path.join(os.tmpdir(), `trilith-tune-test-${process.pid}`);
globalThis.addEventListener("unload", () => fs.rmSync(warmCache, { recursive: true, force: true }));

// deno-lint-ignore no-explicit-any -- the command's own document
let tuned: any;

async function withTunedCache(use: (cache: string) => Promise<void>): Promise<void> {
  tuned ??= documentOf(await runCli(["tune", "--json"], { cache: warmCache, env: ENV }));
  await withFolder({}, async (folder) => {
    const cache = path.join(folder, "cache");
    fs.cpSync(warmCache, cache, { recursive: true, mode: fs.constants.COPYFILE_FICLONE });
    await use(cache);
  });
}

function tuningFiles(cache: string): string[] {
  const folder = path.join(cache, "tunings");
  return fs.existsSync(folder) ? fs.readdirSync(folder).map((name) => path.join(folder, name)) : [];
}

Deno.test("tune: every kernel of this CPU is measured or has a reason, and the best is kept", () =>
  withTunedCache((cache) => {
    const names = TERNARY_KERNELS.filter(({ isa }) => NATIVE_ISAS.includes(isa))
      .filter(({ isa }) => isa !== "portable" || NATIVE_ISAS[0] === "portable").map(kernelName);
    assert.deepEqual(
      tuned.findings.map(({ kernel }: { kernel: string }) => kernel).sort(),
      names.sort(),
    );
    const chosen = tuned.findings.filter(({ outcome }: { outcome: string }) =>
      outcome === "chosen"
    );
    assert.deepEqual(chosen.map(({ kernel }: { kernel: string }) => kernel), [tuned.kernel]);
    assert.ok(chosen[0].figures.weightsPerSecond > 0);
    const [file] = tuningFiles(cache);
    const { path: _, ...kept } = tuned;
    assert.deepEqual(JSON.parse(fs.readFileSync(file, "utf8")), kept);
    return Promise.resolve();
  }));

Deno.test("tune: generate, bench, kernels list and doctor use it and say so; clear forgets it", () =>
  withTunedCache(async (cache) => {
    const options = { cache, env: ENV };
    const text = documentOf(await runCli(GENERATE, options));
    assert.equal(`${text.kernels.isa}-${text.kernels.scheme}`, tuned.kernel);
    assert.match(text.kernels.reason, /^tuned \d{4}-\d\d-\d\d: \S/);
    const plain = documentOf(await runCli([...GENERATE, "--kernels", "portable"], options));
    assert.deepEqual(plain.tokenIds, text.tokenIds);
    assert.match(plain.kernels.reason, /^default: /);
    const bench = ["bench", "-p", "4", "-n", "2", "-r", "1", "--json"];
    const [{ isa, scheme, reason }] = documentOf(await runCli(bench, options)).kernels;
    assert.equal(`${isa}-${scheme}`, tuned.kernel);
    assert.equal(reason, text.kernels.reason);
    const listed = documentOf(await runCli(["kernels", "list", "--json"], options));
    const own = listed.filter(({ type }: { type: string }) => type === "tuning");
    assert.deepEqual(own.map(({ kernel, state }: Record<string, string>) => [kernel, state]), [
      [tuned.kernel, "in use"],
    ]);
    const { stdout } = await runCli(["doctor"], options);
    assert.match(stdout, /tuning +1 of 1 tunings fit this CPU/);
    const cleared = documentOf(await runCli(["kernels", "clear", "--tunings", "--json"], options));
    assert.equal(cleared.removedTunings, 1);
    assert.deepEqual(tuningFiles(cache), []);
  }));

Deno.test("tune: other threads use it too, and are told of it", () =>
  withTunedCache(async (cache) => {
    const args = [...GENERATE, "--threads", String(tuned.threads + 1)];
    const { kernels } = documentOf(await runCli(args, { cache, env: ENV }));
    assert.match(kernels.reason, new RegExp(`^tuned \\S+ with ${tuned.threads} threads: `));
  }));

Deno.test("tune: a damaged file is left for the default, and told of", () =>
  withTunedCache(async (cache) => {
    const [file] = tuningFiles(cache);
    fs.writeFileSync(file, "{");
    const args = { cache, env: ENV };
    const { kernels } = documentOf(await runCli(GENERATE, args));
    assert.equal(kernels.reason, `default: the tuning ${path.basename(file)} is damaged`);
  }));

Deno.test("tune: at first use only where it is wanted", () =>
  withTunedCache(async (cache) => {
    for (const file of tuningFiles(cache)) fs.rmSync(file);
    const reasonWith = async (env: Record<string, string>, ...flags: string[]) =>
      documentOf(await runCli([...GENERATE, ...flags], { cache, env: { ...ENV, ...env } }))
        .kernels.reason;
    assert.equal(await reasonWith({}), "default: not tuned", "the story model is small");
    assert.equal(await reasonWith({ TRILITH_TUNE: "1", CI: "1" }), "default: not tuned");
    assert.equal(await reasonWith({ TRILITH_TUNE: "1" }, "--no-tune"), "default: not tuned");
    assert.deepEqual(tuningFiles(cache), []);
    assert.match(await reasonWith({ TRILITH_TUNE: "1" }), /^tuned /);
    assert.equal(tuningFiles(cache).length, 1);
  }));

Deno.test("tune: two processes at once give one tuning in a damaged one's place, and two texts", () =>
  withTunedCache(async (cache) => {
    const [file] = tuningFiles(cache);
    fs.writeFileSync(file, "{");
    const options = { cache, env: { ...ENV, TRILITH_TUNE: "1" } };
    const both = await Promise.all([runCli(GENERATE, options), runCli(GENERATE, options)]);
    const [one, other] = both.map(documentOf);
    assert.deepEqual(one.tokenIds, other.tokenIds);
    assert.match(one.kernels.reason, /^tuned /);
    assert.equal(other.kernels.reason, one.kernels.reason, "the second one waits for the first");
    assert.deepEqual(tuningFiles(cache), [file]);
    assert.doesNotThrow(() => JSON.parse(fs.readFileSync(file, "utf8")));
  }));

Deno.test("tune: Ctrl-C skips a tuning at first use, and ends `tune` without a trace", () =>
  withTunedCache(async (cache) => {
    for (const file of tuningFiles(cache)) fs.rmSync(file);
    const env = { ...ENV, TRILITH_TUNE: "1" };
    const skipped = startCli(GENERATE, { cache, env });
    await untilTuning(skipped.child.stderr!);
    process.kill(skipped.child.pid!, "SIGINT");
    const { kernels, finishReason } = documentOf(await skipped.ended);
    assert.equal(kernels.reason, "default: tuning was stopped");
    assert.equal(finishReason, "length");
    const ended = startCli(["tune"], { cache, env });
    await untilTuning(ended.child.stderr!);
    process.kill(ended.child.pid!, "SIGINT");
    assert.equal((await ended.ended).code, 130);
    assert.deepEqual(tuningFiles(cache), []);
  }));

/** Resolves once progress says that tuning has begun. */
function untilTuning(stderr: NodeJS.ReadableStream): Promise<void> {
  return new Promise((resolve) => {
    let text = "";
    stderr.on("data", (data) => {
      text += data;
      if (text.includes("Tuning: ")) resolve();
    });
  });
}

Deno.test("tune: a scheme can be asked for, and one that there is not is refused", () =>
  withTunedCache(async (cache) => {
    const options = { cache, env: ENV };
    const asked = documentOf(await runCli([...GENERATE, "--scheme", "multiply"], options));
    assert.deepEqual([asked.kernels.scheme, asked.kernels.reason], ["multiply", "asked for"]);
    for (const command of [GENERATE, ["bench", "-r", "1"], ["tune"]]) {
      const line = errorLine(await runCli([...command, "--scheme", "guess"], options));
      assert.match(line, /^error: Cannot use --scheme "guess" .*: give one of .*\bmultiply\b/);
    }
    const line = errorLine(
      await runCli([...GENERATE, "--scheme", "multiply", "--kernels", "reference"], options),
    );
    assert.match(line, /^error: Cannot use scheme "multiply" with the reference kernels$/);
    const forced = documentOf(await runCli(["tune", "--scheme", "multiply", "--json"], options));
    assert.match(forced.kernel, /-multiply$/);
    const text = documentOf(await runCli(GENERATE, options));
    assert.equal(text.kernels.scheme, "multiply");
  }));

Deno.test("tune: no time is an error that says so, and keeps nothing", () =>
  withTunedCache(async (cache) => {
    fs.rmSync(path.join(cache, "kernels"), { recursive: true });
    for (const file of tuningFiles(cache)) fs.rmSync(file);
    const args = ["tune", "--shape", "bitnet-3b", "--seconds", "1"];
    const line = errorLine(await runCli([...args, "--quiet"], { cache, env: ENV }));
    assert.match(line, /^error: Cannot tune bitnet-3b as the time was up .*--seconds 1$/);
    assert.deepEqual(tuningFiles(cache), []);
  }));
