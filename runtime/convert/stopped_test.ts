/** Conversions that are stopped, killed, or not alone: the next one ends as if nothing had been. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { inFolder } from "../../kernels/test_helpers.ts";
import { fixturePath } from "../../tests/fixtures.ts";
import type { Progress } from "../types.ts";
import { convertModel, type ConvertOptions } from "./convert.ts";

const SAFETENSORS = fixturePath("models/llama3-158-packed");
const GGUF = fixturePath("models-gguf/llama3-158-TQ2_0.gguf");
const TRILITH = "source.trilith";
/** So that even these small models are noted more than once. */
const SYNC_BYTES = 64 << 10;

interface Case {
  source: string;
  /** The name of what is written. */
  name: string;
  options?: ConvertOptions;
}

/** Every source by every kind of destination, and every type. */
const CASES: readonly Case[] = [
  { source: SAFETENSORS, name: "out.gguf", options: { type: "i2_s" } },
  { source: SAFETENSORS, name: "out.gguf", options: { type: "tq1_0", splitMaxBytes: 300_000 } },
  { source: SAFETENSORS, name: "out" },
  { source: SAFETENSORS, name: "out", options: { splitMaxBytes: 200_000 } },
  { source: SAFETENSORS, name: "out.trilith" },
  { source: GGUF, name: "out.gguf", options: { type: "q2_0", embeddingType: "f32" } },
  { source: GGUF, name: "out", options: { splitMaxBytes: 300_000 } },
  { source: GGUF, name: "out.trilith", options: { layout: "shuffle24" } },
  { source: TRILITH, name: "out.gguf", options: { type: "pq2_0" } },
  { source: TRILITH, name: "out.gguf", options: { type: "tq2_0", splitMaxBytes: 300_000 } },
  { source: TRILITH, name: "out" },
  { source: TRILITH, name: "out.trilith" },
];

function titleOf({ source, name, options = {} }: Case): string {
  return `${path.basename(source)} to ${name} ${JSON.stringify(options)}`;
}

/** All files below a folder with their bytes. */
function contentsOf(folder: string): Map<string, Uint8Array> {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
  return new Map(files.map((file) => [path.relative(folder, file), fs.readFileSync(file)]));
}

function assertSame(folder: string, expected: string, what: string): void {
  const [actual, wanted] = [folder, expected].map(contentsOf);
  assert.deepEqual([...actual.keys()].sort(), [...wanted.keys()].sort(), what);
  for (const [name, bytes] of wanted) assert.deepEqual(actual.get(name), bytes, `${what}: ${name}`);
}

interface Places {
  source: string;
  /** Of the output under test, which is alone in its folder. */
  target: string;
  /** Folders of the output and of that of an undisturbed run. */
  folder: string;
  expected: string;
}

/** Converts once without a disturbance. */
async function withCase(
  { source: given, name, options }: Case,
  use: (places: Places) => Promise<void>,
): Promise<void> {
  await inFolder(async (root) => {
    const [folder, expected] = ["folder", "expected"].map((each) => path.join(root, each));
    for (const each of [folder, expected]) fs.mkdirSync(each);
    const source = given === TRILITH ? path.join(root, TRILITH) : given;
    if (given === TRILITH) await convertModel(SAFETENSORS, source, { verify: false });
    await convertModel(source, path.join(expected, name), options);
    await use({ source, target: path.join(folder, name), folder, expected });
  });
}

/** How far a phase is, from 0 to 1. */
type Moment = readonly [phase: Progress["phase"], share: number];

function isReached({ phase, done, total }: Progress, [wanted, share]: Moment): boolean {
  return phase === wanted && done! >= share * total!;
}

/** Aborts at a moment, as Ctrl-C does. */
async function stop(
  { source, target }: Pick<Places, "source" | "target">,
  moment: Moment,
  options?: ConvertOptions,
): Promise<void> {
  const controller = new AbortController();
  const onProgress = (progress: Progress) => {
    if (isReached(progress, moment)) controller.abort(new DOMException("Stopped", "AbortError"));
  };
  const { signal } = controller;
  await assert.rejects(
    convertModel(source, target, { ...options, syncBytes: SYNC_BYTES, onProgress, signal }),
    { name: "AbortError" },
  );
}

const MOMENTS: readonly Moment[] = [["convert", 0], ["convert", 0.9], ["verify", 0]];

for (const each of CASES) {
  Deno.test(`convert: stopped again and again, ${titleOf(each)} is the same`, () =>
    withCase(each, async (places) => {
      const { source, target, folder, expected } = places;
      for (const moment of MOMENTS) {
        await stop(places, moment, each.options);
        assert.deepEqual(fs.readdirSync(folder), [`${each.name}.partial`]);
      }
      const { resumedBytes } = await convertModel(source, target, each.options);
      assert.ok(resumedBytes > 0, "nothing was gone on with");
      assertSame(folder, expected, titleOf(each));
      assert.deepEqual(fs.readdirSync(folder), fs.readdirSync(expected));
    }));
}

const CONVERT_ONCE = fileURLToPath(new URL("./convert_once.ts", import.meta.url));

/** A process that stands still at a moment. */
async function standingAt(
  [phase, share]: Moment,
  { source, target }: Places,
  options: ConvertOptions = {},
) {
  const settings = JSON.stringify({ ...options, syncBytes: SYNC_BYTES });
  const child = spawn(
    process.execPath,
    ["run", "-A", "--no-check", CONVERT_ONCE, source, target, phase, `${share}`, settings],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const [text] = await once(child.stdout!, "data");
  assert.equal(`${text}`, "standing\n");
  return {
    kill: async () => {
      child.kill("SIGKILL");
      await once(child, "close");
    },
  };
}

for (const index of [0, 2, 7]) {
  const each = CASES[index];
  Deno.test(`convert: killed while writing and reading back, ${titleOf(each)} is the same`, () =>
    withCase(each, async (places) => {
      const { source, target, folder, expected } = places;
      for (const moment of MOMENTS.slice(1)) {
        const { kill } = await standingAt(moment, places, each.options);
        await kill();
        assert.ok(!fs.existsSync(target));
      }
      const { resumedBytes, bytes, verified } = await convertModel(source, target, each.options);
      assert.ok(resumedBytes > bytes / 2 && verified !== null);
      assertSame(folder, expected, titleOf(each));
    }));
}

Deno.test("convert: who comes second waits, and goes on when the first is killed", () =>
  withCase(CASES[1], async (places) => {
    const { source, target, folder, expected } = places;
    const { options } = CASES[1];
    const { kill } = await standingAt(["convert", 0.9], places, options);
    const notices: string[] = [];
    const onNotice = (text: string) => {
      notices.push(text);
      void kill();
    };
    const { resumedBytes } = await convertModel(source, target, { ...options, onNotice });
    assert.equal(notices.length, 1);
    assert.match(notices[0], /^Process \d+ is writing out\.gguf: waiting for it$/);
    assert.ok(resumedBytes > 0);
    assertSame(folder, expected, "the second's");
  }));

Deno.test("convert: of two at once one writes, and the other finds that it is there", () =>
  withCase(CASES[2], async ({ source, target, folder, expected }) => {
    const both = await Promise.allSettled([1, 2].map(() => convertModel(source, target)));
    const [refused] = both.filter((each) => each.status === "rejected");
    assert.match(String(refused.reason), /UsageError: .*it is there already: add --force/);
    assert.equal(both.filter(({ status }) => status === "fulfilled").length, 1);
    assertSame(folder, expected, "the first's");
  }));

Deno.test("convert: what appears at the place meanwhile is not written over", () =>
  withCase(CASES[0], async ({ source, target, folder }) => {
    const { options } = CASES[0];
    const onProgress = ({ phase }: Progress) => {
      if (phase === "verify") fs.writeFileSync(target, "mine");
    };
    await assert.rejects(
      convertModel(source, target, { ...options, onProgress }),
      /is there already/,
    );
    assert.equal(fs.readFileSync(target, "utf8"), "mine");
    const { resumedBytes, bytes } = await convertModel(source, target, { ...options, force: true });
    assert.ok(resumedBytes > bytes / 2);
    assert.deepEqual(fs.readdirSync(folder), ["out.gguf"]);
  }));

Deno.test("convert: a source that changes on the way is told, and nothing of it is kept", () =>
  inFolder(async (folder) => {
    for (const [name, verify] of [["out.gguf", true], ["out", false]] as const) {
      const source = path.join(folder, "source");
      fs.cpSync(SAFETENSORS, source, { recursive: true });
      const onProgress = ({ done, total }: Progress) => {
        if (done === total) fs.utimesSync(path.join(source, "model.safetensors"), 1, 1);
      };
      await assert.rejects(
        convertModel(source, path.join(folder, name), { verify, onProgress }),
        {
          name: "OutputError",
          message: /Cannot trust what was written as ".*model.safetensors" was changed meanwhile/,
        },
      );
      assert.deepEqual(fs.readdirSync(folder), ["source"]);
    }
  }));

Deno.test("convert: what was stopped is begun anew if the source has changed since", () =>
  inFolder(async (folder) => {
    const source = path.join(folder, "source");
    fs.cpSync(SAFETENSORS, source, { recursive: true });
    for (const name of ["out", "out.gguf", "out.trilith"]) {
      const target = path.join(folder, name);
      for (const changed of ["model.safetensors", "generation_config.json"]) {
        const format = name === "out" ? { splitMaxBytes: 200_000 } : {};
        await stop({ source, target }, ["verify", 0], { ...format, force: true });
        const file = path.join(source, changed);
        if (changed.endsWith(".json")) {
          // Of the same length.
          fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("\n", " "));
        } else fs.utimesSync(file, 1, fs.statSync(file).mtimeMs / 1000 + 5);
        const { resumedBytes } = await convertModel(source, target, { ...format, force: true });
        if (name !== "out.gguf" || changed === "model.safetensors") assert.equal(resumedBytes, 0);
      }
    }
  }));
