/**
 * The readers of GGUF and safetensors files on damaged models: every field of every header is set to
 * what readers break at, each on its own, and files are cut at every byte. Whatever is in them, they are
 * read or refused with an error of ours; no byte outside of a file is asked for; what is read, and what
 * is allocated at once, stays within a multiple of the files' size.
 */
import assert from "node:assert/strict";
import process from "node:process";
import type { Checkpoint } from "../runtime/checkpoint.ts";
import { CheckpointError, UnsupportedModelError } from "../runtime/errors.ts";
import { openFolder } from "../runtime/folder_checkpoint.ts";
import { openGguf } from "../runtime/gguf/checkpoint.ts";
import type { ModelFiles } from "../runtime/model_files.ts";
import { type Allocations, withAllocations } from "./allocations.ts";
import { soundFolders } from "./fuzz_folders.ts";
import { longGguf, soundGgufs, soundSplit } from "./fuzz_ggufs.ts";
import {
  folderCases,
  ggufModelCases,
  longCases,
  type ModelCase,
  splitCases,
} from "./model_cases.ts";
import { type Reads, watchedFiles } from "./watched_files.ts";
import { STEPS } from "./whole_model.ts";

const PAIRS = 3000;
/** Fewer would say that some fields are no longer found. */
const LEAST_CASES = 200_000;
const SHOWN_FAULTS = Number(process.env.FUZZ_FAULTS ?? 5);

/** What a model may make its reader do. */
interface Limits {
  reads: number;
  /** Of one, of all files, and whatever their size. */
  readFactor: number;
  allocationFactor: number;
  allocationBytes: number;
}
const LIMITS: Limits = {
  reads: 500,
  readFactor: 10,
  allocationFactor: 20,
  allocationBytes: 2 ** 20,
};

interface Figures {
  cases: number;
  opened: number;
  whole: number;
  reads: number;
  readFactor: number;
  allocationBytes: number;
}

async function runCases(cases: Iterable<ModelCase>): Promise<Figures> {
  const figures: Figures = {
    cases: 0,
    opened: 0,
    whole: 0,
    reads: 0,
    readFactor: 0,
    allocationBytes: 0,
  };
  const faults: Error[] = [];
  await withAllocations(async (seen) => {
    let index = 0;
    for (const each of cases) {
      try {
        const isWhole = await runCase(each, seen, figures);
        assert.ok(isWhole || index > 0, "the sound model was refused");
      } catch (error) {
        faults.push(new Error(`Case ${index}: ${each.what}`, { cause: error }));
      }
      index++;
    }
  });
  const most = faults.slice(0, SHOWN_FAULTS);
  if (faults.length > 0) throw new AggregateError(most, `${faults.length} faults`);
  return figures;
}

async function runCase(each: ModelCase, seen: Allocations, figures: Figures): Promise<boolean> {
  const files = each.files();
  const size = Object.values(files).reduce((sum, { length }) => sum + length, 0);
  const reads: Reads = { count: 0, bytes: 0 };
  seen.largest = 0;
  const opened = await openAndRead(each, watchedFiles("model", files, reads));
  const isWhole = opened.length === STEPS.length && opened.every(Boolean);
  figures.cases++;
  if (opened.length > 0) figures.opened++;
  if (isWhole) figures.whole++;
  checkLimits(size, reads, seen.largest);
  figures.reads = Math.max(figures.reads, reads.count);
  figures.readFactor = Math.max(figures.readFactor, reads.bytes / Math.max(size, 1));
  figures.allocationBytes = Math.max(figures.allocationBytes, seen.largest);
  return isWhole;
}

/** Whether each step was done, and none where the model was not opened. */
async function openAndRead({ gguf }: ModelCase, files: ModelFiles): Promise<boolean[]> {
  let checkpoint: Checkpoint | null = null;
  await attempted(async () => {
    checkpoint = gguf === null
      ? await openFolder("model", null, files)
      : await openGguf(`model/${gguf}`, {}, files.open);
  });
  if (checkpoint === null) return [];
  const done: boolean[] = [];
  for (const step of STEPS) done.push(await attempted(() => step(checkpoint!)));
  await (checkpoint as Checkpoint).close();
  return done;
}

async function attempted(run: () => Promise<void>): Promise<boolean> {
  try {
    await run();
    return true;
  } catch (error) {
    const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
    if (!isOurs) throw error;
    assert.ok(error.message.length < 1000 && !error.message.includes("\n"), error.message);
    return false;
  }
}

function checkLimits(size: number, reads: Reads, largest: number): void {
  const allocation = LIMITS.allocationFactor * size + LIMITS.allocationBytes;
  assert.ok(reads.count <= LIMITS.reads, `${reads.count} reads`);
  assert.ok(reads.bytes <= LIMITS.readFactor * size, `${reads.bytes} bytes read of ${size}`);
  assert.ok(largest <= allocation, `${largest} bytes allocated at once for files of ${size}`);
}

let cases = 0;

function fuzz(name: string, casesOf: () => Iterable<ModelCase>): void {
  Deno.test(`${name}: every field damaged, read or refused`, async () => {
    const figures = await runCases(casesOf());
    const { opened, whole } = figures;
    assert.ok(whole > 0 && whole <= opened && opened < figures.cases, JSON.stringify(figures));
    cases += figures.cases;
  });
}

for (const [name, parts] of soundGgufs()) fuzz(name, () => ggufModelCases(parts, PAIRS));
fuzz("GGUF in three files", () => splitCases(soundSplit()));
fuzz("GGUF with a long header", () => longCases(longGguf(), 300));
for (const [name, parts] of soundFolders()) fuzz(name, () => folderCases(parts));

Deno.test("the cases are as many as they were", () => {
  assert.ok(cases >= LEAST_CASES, `${cases} cases`);
});
