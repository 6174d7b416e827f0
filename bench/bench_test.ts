import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { kernelName } from "../codegen/ternary_linear/spec.ts";
import { KERNELS } from "./machine.ts";

const FOLDER = path.dirname(fileURLToPath(import.meta.url));

interface Bench {
  group: string;
  name: string;
  baseline: boolean;
  results: { ok?: unknown; failed?: unknown }[];
}

/** Everything once, on small shapes. */
function runSmall(): Bench[] {
  const env = { ...process.env, TRILITH_BENCH_SMALL: "1", NO_COLOR: "1" };
  const args = ["bench", "-A", "--no-check", "--json", FOLDER];
  const { status, signal, error, stdout, stderr } = spawnSync(process.execPath, args, {
    env,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  assert.equal(status, 0, `${signal} ${error?.message} ${stderr}`);
  return JSON.parse(stdout).benches;
}

Deno.test("bench: every benchmark runs, on every kernel, with a baseline in every group", () => {
  const benches = runSmall();
  for (const { group, name, results } of benches) {
    assert.ok(results.every((result) => result.ok !== undefined), `${group}: ${name}`);
  }
  const groups = new Set(benches.map(({ group }) => group));
  for (const group of groups) {
    const baselines = benches.filter((bench) => bench.group === group && bench.baseline);
    assert.equal(baselines.length, 1, group);
  }
  const linears = [...groups].filter((group) => / tokens?, (caches|memory)$/.test(group));
  assert.equal(linears.length, 3);
  for (const group of linears) {
    const names = benches.filter((bench) => bench.group === group).map(({ name }) =>
      name.split(",", 1)[0]
    );
    assert.deepEqual(names.sort(), KERNELS.map(kernelName).sort(), group);
  }
  for (const name of ["head", "sampler", "encode", "decode"]) assert.ok(groups.has(name), name);
});
