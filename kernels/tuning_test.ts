/** Tuning files: kept, found again, and not believed. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { SMALL_SPEC } from "../codegen/test_helpers.ts";
import { kernelName } from "../codegen/ternary_linear/spec.ts";
import { linearWork } from "../codegen/ternary_linear/work.ts";
import { isUpToDate, reasonNotToTune, subjectOf } from "./autotune.ts";
import type { Cpu } from "./cpu.ts";
import { likelyKernel } from "./selection.ts";
import { inFolder, withEnvironment } from "./test_helpers.ts";
import type { Finding } from "./tuner.ts";
import {
  clearTunings,
  findTuning,
  listTunings,
  MAGIC,
  printable,
  storeTuning,
  type Tuning,
  tuningFileName,
  tuningFolder,
  tuningKey,
  type TuningSubject,
  tuningVersion,
} from "./tuning.ts";

const CPU: Cpu = {
  arch: "x86_64",
  os: "linux",
  modelName: "AMD EPYC 9654",
  features: new Set([
    ..."avx avx2 fma f16c bmi1 bmi2 abm movbe avx512f avx512bw avx512cd".split(" "),
    ..."avx512dq avx512vl avx512_vnni avx512vbmi".split(" "),
  ]),
  logicalCores: 2,
  allowedCores: 2,
  physicalCores: 2,
  quotaCores: null,
  cacheBytes: { l1d: 32768, l2: 1 << 20, l3: 32 << 20 },
};
const ZIG = { path: "/zig", version: "0.17.1", source: "PATH" } as const;
const SUBJECT = subjectOf(ZIG, CPU, SMALL_SPEC);

const FINDING: Finding = {
  kernel: "avx512-multiply",
  layout: "rows32",
  bitsPerWeight: 2,
  outcome: "chosen",
  why: "100.0 G weights/s",
  figures: {
    rounds: 7,
    decodeNs: 1e6,
    promptNs: 2e5,
    ratio: 0.9,
    spread: 0,
    weightsPerSecond: 1e11,
    peakFraction: 0.9,
    measurements: [{ n: 64, k: 64, tokens: 1, medianNs: 100, spread: 0.1 }],
  },
};

function tuningOf(subject: TuningSubject = SUBJECT, more: Partial<Tuning> = {}): Tuning {
  return {
    magic: MAGIC,
    key: tuningKey(subject),
    version: tuningVersion(subject),
    model: "small",
    cpu: { arch: CPU.arch, modelName: CPU.modelName, features: [...CPU.features].sort() },
    threads: 2,
    works: [...subject.works],
    zigVersion: subject.zigVersion,
    tunedAt: "2026-11-24T10:00:00.000Z",
    seconds: 4.5,
    promptTokensPerToken: 0.5,
    kernel: "avx512-multiply",
    why: "100.0 G weights/s",
    peakReadBytesPerSecond: 3e10,
    findings: [FINDING],
    ...more,
  };
}

/** Runs with a cache of its own. */
function inCache(use: () => Promise<void>): Promise<void> {
  return inFolder((folder) => withEnvironment({ TRILITH_CACHE: folder }, use));
}

Deno.test("tuning: what was kept is found again, by its threads or the nearest", () =>
  inCache(async () => {
    assert.equal(findTuning(SUBJECT, 2), null);
    for (const threads of [1, 2, 8]) await storeTuning(tuningOf(SUBJECT, { threads }));
    assert.deepEqual(findTuning(SUBJECT, 2), tuningOf());
    assert.equal((findTuning(SUBJECT, 7) as Tuning).threads, 8);
    fs.writeFileSync(path.join(tuningFolder(), tuningFileName(tuningOf())), "damaged");
    assert.equal((findTuning(SUBJECT, 2) as Tuning).threads, 1, "a damaged one is passed over");
    await storeTuning(tuningOf());
    await storeTuning(tuningOf(SUBJECT, { threads: 8, kernel: "avx512-lookup9" }));
    assert.equal((findTuning(SUBJECT, 8) as Tuning).kernel, "avx512-lookup9");
    assert.equal(listTunings().tunings.length, 3);
    const left = fs.readdirSync(tuningFolder()).filter((name) => !name.endsWith(".json"));
    assert.deepEqual(left, []);
  }));

Deno.test("tuning: another CPU, model or order of features is another key, or the same", () => {
  const other = (cpu: Partial<Cpu>) => tuningKey({ ...SUBJECT, cpu: { ...CPU, ...cpu } });
  assert.notEqual(other({ modelName: "AMD EPYC 9754" }), tuningKey(SUBJECT));
  assert.notEqual(other({ features: new Set([...CPU.features, "amx_int8"]) }), tuningKey(SUBJECT));
  assert.equal(other({ features: new Set([...CPU.features].reverse()) }), tuningKey(SUBJECT));
  const wider = linearWork({ ...SMALL_SPEC, intermediateSize: 128 });
  assert.notEqual(tuningKey({ ...SUBJECT, works: wider }), tuningKey(SUBJECT));
});

Deno.test("tuning: it is void once kernels, their source or the compiler change", () =>
  inCache(async () => {
    await storeTuning(tuningOf());
    const problem = { problem: "the kernels have changed since it was tuned" };
    assert.deepEqual(findTuning({ ...SUBJECT, zigVersion: "0.17.2" }, 2), problem);
    const fewer = { ...SUBJECT, kernels: SUBJECT.kernels.slice(1) };
    assert.deepEqual(findTuning(fewer, 2), problem);
    assert.ok(isUpToDate(tuningOf(), CPU));
    assert.ok(!isUpToDate(tuningOf(SUBJECT, { version: "00" }), CPU));
  }));

Deno.test("tuning: the likely kernel reads what is packed, else is the tuned one, else the default", () =>
  inCache(async () => {
    const likely = (layout?: string, cpu = CPU) =>
      kernelName(likelyKernel(cpu, { spec: SMALL_SPEC, layout, threads: 2 }));
    assert.equal(likely(), "avx512-lookup48");
    await storeTuning(tuningOf(SUBJECT, { kernel: "avx512-lookup9" }));
    assert.equal(likely(), "avx512-lookup9");
    assert.equal(likely("rows32"), "avx512-multiply");
    assert.equal(likely("a layout of later"), "avx512-lookup9");
    assert.equal(likely(undefined, { ...CPU, features: new Set() }), "portable-multiply");
    await storeTuning(tuningOf(SUBJECT, { kernel: "avx512-lookup9", version: "00" }));
    assert.equal(likely(), "avx512-lookup48", "what is outdated is not used");
  }));

/** What may be in a file that is not ours, or was damaged. */
const DAMAGED: Record<string, (tuning: Tuning) => string> = {
  "nothing": () => "",
  "half of it": (tuning) => JSON.stringify(tuning).slice(0, 900),
  "zeros": () => "\0".repeat(4096),
  "no object": () => "[]",
  "null": () => "null",
  "another version's": (tuning) => JSON.stringify({ ...tuning, magic: "trilith-tuning-0" }),
  "a kernel with a path": (tuning) => JSON.stringify({ ...tuning, kernel: "../../x" }),
  "a kernel that is no text": (tuning) =>
    JSON.stringify({ ...tuning, kernel: ["avx512-multiply"] }),
  "a reason that steers the terminal": (tuning) =>
    JSON.stringify({ ...tuning, why: "\x1b]0;owned\x07" }),
  "a reason of a megabyte": (tuning) => JSON.stringify({ ...tuning, why: "x".repeat(1 << 20) }),
  "a reason of 2,000 characters": (tuning) => JSON.stringify({ ...tuning, why: "x".repeat(2000) }),
  "matrices without end": (tuning) =>
    JSON.stringify({ ...tuning, works: [{ ...tuning.works[0], k: 1e15 }] }),
  "no matrices": (tuning) => JSON.stringify({ ...tuning, works: undefined }),
  "a figure that is no number": (tuning) =>
    JSON.stringify(tuning).replace('"decodeNs":1000000', '"decodeNs":"soon"'),
  "a figure that is infinite": (tuning) =>
    JSON.stringify(tuning).replace('"decodeNs":1000000', '"decodeNs":1e999'),
  "an outcome that there is not": (tuning) => JSON.stringify(tuning).replace("chosen", "best"),
  "too many findings": (tuning) =>
    JSON.stringify({ ...tuning, findings: Array.from({ length: 200 }, () => FINDING) }),
  "a date that is none": (tuning) =>
    JSON.stringify({ ...tuning, tunedAt: "2026-99-99T99:99:99.999Z" }),
  "negative threads": (tuning) => JSON.stringify({ ...tuning, threads: -2 }),
};

for (const [what, damage] of Object.entries(DAMAGED)) {
  Deno.test(`tuning: a file with ${what} is as good as absent, and can be written anew`, () =>
    inCache(async () => {
      const name = tuningFileName(tuningOf());
      fs.writeFileSync(path.join(tuningFolder(), name), damage(tuningOf()));
      assert.deepEqual(findTuning(SUBJECT, 2), { problem: `the tuning ${name} is damaged` });
      assert.deepEqual(listTunings(), { tunings: [], damaged: [name] });
      await storeTuning(tuningOf());
      assert.deepEqual(findTuning(SUBJECT, 2), tuningOf());
    }));
}

Deno.test("tuning: a file under a name that is not its own is not used", () =>
  inCache(async () => {
    const text = JSON.stringify(tuningOf());
    const threads3 = tuningFileName({ key: tuningKey(SUBJECT), threads: 3 });
    fs.writeFileSync(path.join(tuningFolder(), threads3), text);
    assert.deepEqual(findTuning(SUBJECT, 3), {
      problem: `the tuning ${threads3} belongs elsewhere`,
    });
    fs.rmSync(path.join(tuningFolder(), threads3));
    fs.mkdirSync(path.join(tuningFolder(), threads3));
    assert.deepEqual(findTuning(SUBJECT, 3), { problem: `the tuning ${threads3} is damaged` });
    fs.rmdirSync(path.join(tuningFolder(), threads3));
    await storeTuning(tuningOf());
    for (const name of ["notes.txt", `${"0".repeat(32)}.json`, "x-2.json"]) {
      fs.writeFileSync(path.join(tuningFolder(), name), text);
    }
    assert.equal(listTunings().tunings.length, 1);
    assert.equal(clearTunings(), 1);
    assert.equal(fs.readdirSync(tuningFolder()).length, 3, "other people's files stay");
  }));

Deno.test("tuning: names are kept short and printable", () => {
  assert.equal(printable("a\x1b[31mb\nc\u2028"), "a?[31mb?c?");
  assert.equal(printable("x".repeat(5000)).length, 1000);
});

Deno.test("tuning at first use: never with CI or TRILITH_TUNE=0, nor for a small model", async () => {
  const small = linearWork(SMALL_SPEC);
  const large = [{ n: 2560, k: 2560, perToken: 100, makesInput: true }];
  const cases: [Record<string, string | undefined>, typeof large, string | null][] = [
    [{}, large, null],
    [{}, small, "the model is small"],
    [{ TRILITH_TUNE: "1" }, small, null],
    [{ TRILITH_TUNE: "0" }, large, "TRILITH_TUNE is 0"],
    [{ CI: "true" }, large, "CI is set"],
    [{ CI: "1", TRILITH_TUNE: "1" }, large, "CI is set"],
  ];
  for (const [variables, works, expected] of cases) {
    await withEnvironment({ CI: undefined, TRILITH_TUNE: undefined, ...variables }, () => {
      assert.equal(reasonNotToTune(works), expected, JSON.stringify(variables));
    });
  }
});
