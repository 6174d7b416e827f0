import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../../kernels/test_helpers.ts";
import type { PlannedFile } from "./plan.ts";
import { publishFiles, publishFolder, restoreReplaced, takenPlaces } from "./publish.ts";
import { endStaging, openStaging, stage, stagingFolder, type StagingOptions } from "./staging.ts";

const PART_BYTES = 40 << 10;
const SYNC_BYTES = 64 << 10;
const PARTS = 4;

/** Two files of parts that tell what was made, and may fail at one. */
function planOf(made: string[], failing = ""): PlannedFile[] {
  return ["a", "b"].map((name) => ({
    name,
    head: new TextEncoder().encode(`head of ${name}`),
    bytes: 64 + PARTS * PART_BYTES,
    parts: Array.from({ length: PARTS }, (_, i) => ({
      what: `${name}${i}`,
      offset: 64 + i * PART_BYTES,
      bytes: PART_BYTES,
      async *chunks() {
        if (failing === `${name}${i}`) throw new Error("killed");
        made.push(`${name}${i}`);
        for (let at = 0; at < PART_BYTES; at += PART_BYTES / 4) {
          yield await Promise.resolve(new Uint8Array(PART_BYTES / 4).fill(1 + i));
        }
      },
    })),
  }));
}

/** Writes the files, and gives where and what was written. */
async function staged(
  target: string,
  files: PlannedFile[],
  { identity, ...options }: StagingOptions & { identity: string },
) {
  const staging = await openStaging(target, files, identity);
  return { ...staging, ...await stage(staging, options) };
}

function checkFiles(folder: string): void {
  for (const name of ["a", "b"]) {
    const bytes = fs.readFileSync(path.join(folder, name));
    assert.equal(bytes.length, 64 + PARTS * PART_BYTES);
    assert.equal(bytes.toString("latin1", 0, 9), `head of ${name}`);
    assert.ok(bytes.subarray(9, 64).every((byte) => byte === 0));
    for (let i = 0; i < PARTS; i++) {
      const at = 64 + i * PART_BYTES;
      assert.ok([bytes[at], bytes[at + PART_BYTES - 1]].every((byte) => byte === 1 + i));
    }
  }
}

Deno.test("staging: an output that was stopped goes on behind its last finished parts", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    const made: string[] = [];
    let notes = 0;
    const options = { identity: "x", syncBytes: SYNC_BYTES, takeNotes: () => [notes++] };
    await assert.rejects(staged(target, planOf(made, "b3"), options), /killed/);
    assert.deepEqual(made, ["a0", "a1", "a2", "a3", "b0", "b1", "b2"]);
    assert.ok(!fs.existsSync(target));
    made.length = 0;
    const staging = await staged(target, planOf(made), options);
    // b2 was written, but the journal did not tell yet.
    assert.deepEqual(made, ["b2", "b3"]);
    assert.equal(staging.resumedBytes, 6 * PART_BYTES);
    assert.deepEqual(staging.notes, staging.notes.map((_, i) => i));
    assert.deepEqual(
      await publishFolder(staging),
      ["a", "b"].map((name) => path.join(target, name)),
    );
    assert.deepEqual(fs.readdirSync(target), ["a", "b"]);
    assert.deepEqual(fs.readdirSync(folder), ["out"]);
    checkFiles(target);
  }));

Deno.test("staging: what another source, or nobody, can go on with begins anew", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    const made: string[] = [];
    await assert.rejects(staged(target, planOf(made, "b3"), { identity: "x" }), /killed/);
    made.length = 0;
    await assert.rejects(
      staged(target, planOf(made, "a1"), { identity: "y", syncBytes: SYNC_BYTES }),
      /killed/,
    );
    assert.deepEqual(made, ["a0"]);
    await assert.rejects(
      staged(target, planOf(made, "b3"), { identity: "y", syncBytes: SYNC_BYTES }),
      /killed/,
    );
    // A file that was cut short is not believed, nor is a line that was.
    fs.truncateSync(path.join(stagingFolder(target), "b"), 1000);
    fs.appendFileSync(path.join(stagingFolder(target), "journal.jsonl"), '{"parts": 8');
    made.length = 0;
    const staging = await staged(target, planOf(made), { identity: "y", syncBytes: SYNC_BYTES });
    assert.equal(made.length, 2 * PARTS);
    await publishFiles(staging);
    assert.deepEqual(fs.readdirSync(folder), ["a", "b"]);
    checkFiles(folder);
  }));

Deno.test("staging: a signal stops it, and a folder of somebody else's stays", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    const controller = new AbortController();
    const options = {
      identity: "x",
      signal: controller.signal,
      onProgress: () => controller.abort(new DOMException("Stopped", "AbortError")),
    };
    await assert.rejects(staged(target, planOf([]), options), { name: "AbortError" });
    fs.rmSync(stagingFolder(target), { recursive: true });
    fs.mkdirSync(stagingFolder(target));
    fs.writeFileSync(path.join(stagingFolder(target), "letter"), "mine");
    await assert.rejects(staged(target, planOf([]), { identity: "x" }), {
      name: "OutputError",
      message: /out\.partial": the folder is not one of an unfinished conversion/,
    });
  }));

Deno.test("staging: a disk without room is told before anything is written", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    const made: string[] = [];
    const [file] = planOf(made);
    const huge = { ...file, bytes: 2 ** 60 };
    await assert.rejects(staged(target, [huge], { identity: "x" }), {
      name: "OutputError",
      message: /Cannot write "out": it needs \d+ bytes, and .* has \d+ free/,
    });
    assert.deepEqual(made, []);
    assert.deepEqual(fs.readdirSync(folder), []);
  }));

Deno.test("staging: what the file system refuses is one line with the remedy", () =>
  inFolder(async (folder) => {
    for (
      const [code, message] of [
        ["ENOSPC", /out": the disk is full: make room, the same command then goes on/],
        ["EROFS", /out": the file system is read-only: give another place/],
      ] as const
    ) {
      const target = path.join(folder, "out");
      const files = planOf([]);
      const failing = Object.assign(new Error("write"), { code });
      const chunks = async function* () {
        yield await Promise.reject(failing);
      };
      const parts = [{ ...files[0].parts[0], chunks }];
      await assert.rejects(staged(target, [{ ...files[0], parts }], { identity: code }), {
        name: "OutputError",
        message,
      });
    }
    if (Deno.uid() !== 0) {
      fs.chmodSync(folder, 0o500);
      await assert.rejects(staged(path.join(folder, "no"), planOf([]), { identity: "x" }), {
        message: /this user may not write there/,
      });
      fs.chmodSync(folder, 0o700);
    }
    await assert.rejects(staged("/proc/none", planOf([]), { identity: "x" }), /Cannot write/);
  }));

/** An output that is whole and was being moved when a kill came. */
async function wholeStaging(target: string, files: PlannedFile[]) {
  const staging = await openStaging(target, files, "x");
  await stage(staging);
  await endStaging(staging, { matrices: 1 });
  return staging;
}

Deno.test("staging: files of which a kill let some be moved are followed by the rest", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    for (const moved of [[], ["a"], ["a", "b"]]) {
      const { folder: partial } = await wholeStaging(target, planOf([]));
      for (const name of moved) fs.renameSync(path.join(partial, name), path.join(folder, name));
      const made: string[] = [];
      const again = await openStaging(target, planOf(made), "x");
      assert.deepEqual(again.earlier.whole, { verified: { matrices: 1 } });
      assert.deepEqual(takenPlaces(again), []);
      await stage(again);
      await publishFiles(again);
      assert.deepEqual(made, []);
      assert.deepEqual(fs.readdirSync(folder), ["a", "b"]);
      checkFiles(folder);
      for (const name of ["a", "b"]) fs.rmSync(path.join(folder, name));
    }
  }));

Deno.test("staging: a folder is moved to its end, whatever a kill has left of an older one", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    const rename = (from: string, to: string) => fs.renameSync(from, to);
    const steps: ((partial: string) => void)[] = [
      () => {},
      (partial) => rename(target, path.join(partial, "replaced")),
      (partial) => rename(partial, target),
      () => fs.rmSync(path.join(target, "replaced"), { recursive: true }),
    ];
    for (let done = 1; done <= steps.length; done++) {
      fs.rmSync(target, { recursive: true, force: true });
      fs.mkdirSync(target);
      fs.writeFileSync(path.join(target, "old"), "old");
      const { folder: partial } = await wholeStaging(target, planOf([]));
      for (const step of steps.slice(0, done)) step(partial);
      const again = await openStaging(target, planOf([]), "x");
      assert.equal(again.isPublished, done > 2);
      await restoreReplaced(again);
      await stage(again);
      await publishFolder(again);
      assert.deepEqual(fs.readdirSync(folder), ["out"]);
      assert.deepEqual(fs.readdirSync(target), ["a", "b"]);
      checkFiles(target);
    }
  }));

Deno.test("staging: an older folder is put back if another conversion begins", () =>
  inFolder(async (folder) => {
    const target = path.join(folder, "out");
    fs.mkdirSync(target);
    fs.writeFileSync(path.join(target, "old"), "old");
    const { folder: partial } = await wholeStaging(target, planOf([]));
    fs.renameSync(target, path.join(partial, "replaced"));
    const other = await openStaging(target, planOf([]), "y");
    await restoreReplaced(other);
    assert.deepEqual(fs.readdirSync(target), ["old"]);
    await assert.rejects(stage(await openStaging(target, planOf([], "a0"), "y")), /killed/);
    assert.deepEqual(fs.readdirSync(target), ["old"]);
  }));
