/**
 * What tuning has found out, kept in the cache: which kernel is best for a model's matrices on this
 * CPU with some number of threads, and the evidence. Files may be damaged or hostile: what is not
 * exactly as written here is as good as absent.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { linearsSource } from "../codegen/ternary_linear/timing.ts";
import type { LinearWork } from "../codegen/ternary_linear/work.ts";
import { cacheDirectory, publishFile, removeStaleTemporaries } from "./cache.ts";
import type { Cpu } from "./cpu.ts";
import type { Survey } from "./survey.ts";
import { type Finding, OUTCOMES } from "./tuner.ts";

export const MAGIC: Tuning["magic"] = "trilith-tuning-1";

/** What a tuning holds for; a change of any makes it void. */
export interface TuningSubject {
  cpu: Pick<Cpu, "arch" | "modelName" | "features">;
  works: readonly LinearWork[];
  zigVersion: string;
  /** The kernels that are compared: what is used untuned, then its rivals. */
  kernels: readonly TernaryKernel[];
}

/** A tuning as it is kept. */
export interface Tuning extends Partial<Survey> {
  /** What the file begins with. */
  magic: "trilith-tuning-1";
  /** Of CPU and matrices: the file's name begins with it. */
  key: string;
  /** Hash of the source of all kernels that were compared, and of the compiler's version. */
  version: string;
  /** The model or shape that it was made for; others with the same matrices use it too. */
  model: string;
  /** That it was made on. */
  cpu: { arch: string; modelName: string; features: string[] };
  /** That it was made with. */
  threads: number;
  /** The linears that were measured. */
  works: LinearWork[];
  /** The compiler's. */
  zigVersion: string;
  /** ISO 8601. */
  tunedAt: string;
  /** That it took. */
  seconds: number;
  /** Tokens of prompts that counted beside one generated token. */
  promptTokensPerToken: number;
  /** The name of the chosen kernel. */
  kernel: string;
  /** What the others lacked. */
  why: string;
  /** What plain reads of memory got. */
  peakReadBytesPerSecond: number;
  /** One a kernel that was looked at. */
  findings: Finding[];
}

/** A tuning that is no good, and why. */
export interface UselessTuning {
  problem: string;
}

// ---------------------------------------------------------------- identity

/** What names the tunings of these matrices on this CPU. */
export function tuningKey({ cpu, works }: Pick<TuningSubject, "cpu" | "works">): string {
  return hashOf([MAGIC, cpu.arch, cpu.modelName, [...cpu.features].sort(), works]).slice(0, 32);
}

/** Changes whenever one of the kernels, or what is made of them, does. */
export function tuningVersion({ works, zigVersion, kernels }: TuningSubject): string {
  const sources = kernels.map((kernel) => [kernelName(kernel), linearsSource(kernel, works)]);
  return hashOf([zigVersion, sources]);
}

function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

// ---------------------------------------------------------------- files

const FILE = /^([0-9a-f]{32})-(\d{1,4})\.json$/;

/** More than the evidence of all kernels takes. */
const MOST_BYTES = 1 << 20;

export function tuningFolder(): string {
  return cacheDirectory("tunings");
}

export function tuningFileName({ key, threads }: Pick<Tuning, "key" | "threads">): string {
  return `${key}-${threads}.json`;
}

/** Keeps a tuning in the place of an earlier one. @throws {CacheError} */
export async function storeTuning(tuning: Tuning): Promise<void> {
  removeStaleTemporaries(tuningFolder());
  await publishFile(tuningFolder(), tuningFileName(tuning), async (file) => {
    await file.writeFile(JSON.stringify(tuning, null, 1) + "\n");
  });
}

/**
 * The tuning for a subject and so many threads; if there is none, one with other threads, as its
 * layout is packed already.
 *
 * @returns Null if there is none.
 */
export function findTuning(subject: TuningSubject, threads: number): Tuning | UselessTuning | null {
  const tuning = nearestTuning(tuningKey(subject), threads);
  if (tuning === null || "problem" in tuning) return tuning;
  if (tuning.version === tuningVersion(subject)) return tuning;
  return { problem: "the kernels have changed since it was tuned" };
}

/** The tuning of that key for so many threads, or the nearest number of them, up to date or not. */
export function nearestTuning(key: string, threads: number): Tuning | UselessTuning | null {
  const folder = tuningFolder();
  const names = fs.readdirSync(folder).filter((name) => FILE.exec(name)?.[1] === key);
  const distance = (name: string) => Math.abs(Number(FILE.exec(name)![2]) - threads);
  const read = names.sort((a, b) => distance(a) - distance(b))
    .map((name) => readTuning(path.join(folder, name)));
  return read.find((tuning) => !("problem" in tuning)) ?? read[0] ?? null;
}

/** All tunings of all CPUs, newest first; `damaged` are the names of files that are no good. */
export function listTunings(): { tunings: Tuning[]; damaged: string[] } {
  const folder = tuningFolder();
  const tunings: Tuning[] = [];
  const damaged: string[] = [];
  for (const name of fs.readdirSync(folder).filter((name) => FILE.test(name))) {
    const tuning = readTuning(path.join(folder, name));
    if ("problem" in tuning) damaged.push(name);
    else tunings.push(tuning);
  }
  return { tunings: tunings.sort((a, b) => b.tunedAt.localeCompare(a.tunedAt)), damaged };
}

/** Deletes all tunings, damaged ones too. @returns How many. */
export function clearTunings(): number {
  const folder = tuningFolder();
  removeStaleTemporaries(folder);
  const names = fs.readdirSync(folder).filter((name) => FILE.test(name));
  for (const name of names) fs.rmSync(path.join(folder, name), { force: true });
  return names.length;
}

function readTuning(file: string): Tuning | UselessTuning {
  const problem = `the tuning ${path.basename(file)} is damaged`;
  try {
    if (fs.statSync(file).size > MOST_BYTES) return { problem };
    const value: unknown = JSON.parse(fs.readFileSync(file, "utf8"));
    if (!isTuning(value)) return { problem };
    const [, key, threads] = FILE.exec(path.basename(file))!;
    const isOwn = value.key === key && value.threads === Number(threads);
    return isOwn ? value : { problem: `the tuning ${path.basename(file)} belongs elsewhere` };
  } catch (error) {
    if ((error as Error).name === "NotCapable") throw error;
    return { problem };
  }
}

// ---------------------------------------------------------------- what may be in a file

type Check = (value: unknown) => boolean;

/** Printable and short, as it is shown on terminals. */
// deno-lint-ignore no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;
const MOST_TEXT = 1000;

/** A name as it may be kept: short, and without characters that steer a terminal. */
export function printable(name: string): string {
  return name.replace(UNPRINTABLE, "?").slice(0, MOST_TEXT);
}

const text: Check = (value) =>
  typeof value === "string" && value.length <= MOST_TEXT && printable(value) === value;
const word: Check = (value) => typeof value === "string" && /^[\w.+-]{1,100}$/.test(value);
const positive: Check = (value) => typeof value === "number" && value > 0 && value < 1e18;
const amount: Check = (value) => typeof value === "number" && value >= 0 && value < 1e18;
const count: Check = (value) => positive(value) && Number.isSafeInteger(value);
/** Features of a matrix: as far as sums of int8 products stay within int32. */
const size: Check = (value) => count(value) && (value as number) <= 1 << 18;
const flag: Check = (value) => typeof value === "boolean";
const date: Check = (value) =>
  typeof value === "string" && /^[\d:.TZ-]{20,24}$/.test(value) && !Number.isNaN(Date.parse(value));

function list(check: Check, most: number): Check {
  return (value) => Array.isArray(value) && value.length <= most && value.every(check);
}

function optional(check: Check): Check {
  return (value) => value === undefined || check(value);
}

function record(fields: Record<string, Check>): Check {
  return (value) =>
    typeof value === "object" && value !== null &&
    Object.entries(fields).every(([name, check]) =>
      check((value as Record<string, unknown>)[name])
    );
}

const FLOATS = ["f32", "f16", "bf16"];
const GROUPS = record({
  size: (value) => size(value) && (value as number) % 32 === 0,
  weightScales: flag,
  scaleType: optional((value) => FLOATS.includes(value as string)),
});
const WORKS = list(
  record({ n: size, k: size, perToken: count, makesInput: flag, groups: optional(GROUPS) }),
  100,
);
const MEASUREMENT = record({
  n: size,
  k: size,
  tokens: count,
  medianNs: positive,
  spread: amount,
});
const THREAD_TIME = record({ threads: count, decodeNs: positive, promptNs: positive });
const FIGURES = record({
  rounds: count,
  decodeNs: positive,
  promptNs: positive,
  ratio: positive,
  spread: amount,
  weightsPerSecond: positive,
  peakFraction: positive,
  measurements: list(MEASUREMENT, 1000),
});
const FINDINGS = list(
  record({
    kernel: word,
    layout: word,
    bitsPerWeight: positive,
    outcome: (value) => OUTCOMES.some((outcome) => outcome === value),
    why: text,
    figures: optional(FIGURES),
    macsPerCycle: optional(positive),
  }),
  100,
);
const TUNING = record({
  magic: (value) => value === MAGIC,
  key: word,
  version: word,
  model: text,
  cpu: record({ arch: word, modelName: text, features: list(word, 1000) }),
  threads: count,
  works: WORKS,
  zigVersion: word,
  tunedAt: date,
  seconds: amount,
  promptTokensPerToken: amount,
  kernel: word,
  why: text,
  peakReadBytesPerSecond: positive,
  findings: FINDINGS,
  threadTimes: optional(list(THREAD_TIME, 100)),
  advisedThreads: optional(count),
  batches: optional(list(MEASUREMENT, 1000)),
});

function isTuning(value: unknown): value is Tuning {
  return TUNING(value);
}
