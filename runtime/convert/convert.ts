/** Rewrites a model in another format, a tensor at a time. */
import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import type { FloatType } from "../../codegen/model_spec.ts";
import { headerIdentity } from "../checkpoint.ts";
import { shown, UsageError } from "../errors.ts";
import type { I2sLayout } from "../gguf/checkpoint.ts";
import { isTrilithFile } from "../trilith/file.ts";
import type { OnProgress } from "../types.ts";
import { OutputError, outputError } from "./errors.ts";
import { CONVERT_FORMATS, type ConvertFormat, type TernaryType } from "./formats.ts";
import { checkedHalf } from "./ggml_blocks.ts";
import { defaultType } from "./gguf_architectures.ts";
import { planGguf } from "./gguf_plan.ts";
import type { PlannedFile } from "./plan.ts";
import {
  type Perplexities,
  perplexityAfter,
  perplexityBefore,
  type PerplexityRun,
} from "./perplexities.ts";
import { type QuantizationError, quantizationError } from "./quantization_error.ts";
import { openSource, type Source, type TernaryMatrix } from "./source.ts";
import { planPacked } from "./packed_plan.ts";
import { writtenScale } from "./safetensors_config.ts";
import { planSafetensors } from "./safetensors_plan.ts";
import { checkPlace, checkTaken, withPlace } from "./place.ts";
import { isUnmoved, moveFiles, publishFiles, publishFolder, restoreReplaced } from "./publish.ts";
import {
  endStaging,
  openStaging,
  removeStaging,
  stage,
  type Staged,
  type Staging,
} from "./staging.ts";
import { type Verified, verifyModel, type VerifyOptions } from "./verify.ts";

export interface ConvertOptions {
  /** Default: as the destination's name ends. */
  to?: ConvertFormat;
  /** Ternary tensors of a GGUF file. Default: tq2_0, or what has readers; see `defaultType`. */
  type?: TernaryType;
  /** Embedding and head. Default: as the model has them. */
  embeddingType?: FloatType;
  /** tokenizer.ggml.pre of a GGUF file. Default: by the tokenizer's own rules. */
  pre?: string;
  /** Layout of a packed file: a name, or "auto" for this machine's. Default: rows32, which all read. */
  layout?: string;
  /** Bytes that no file is to exceed. Default: one file. */
  splitMaxBytes?: number;
  /** Ternarise the linears of a plain float checkpoint. */
  quantize?: "absmean";
  /** How I2_S weights of a GGUF source lie. Default: x86. */
  i2sLayout?: I2sLayout;
  /** Replace what is there. */
  force?: boolean;
  /** Read the output back and compare it with the source. Default: true. */
  verify?: boolean;
  /** What is written at least between two notes of how far it is. Default: 64 MiB. */
  syncBytes?: number;
  /** A text whose perplexity is measured before and after. */
  perplexity?: Pick<PerplexityRun, "text" | "chunkTokens" | "chunks">;
  onProgress?: OnProgress;
  /** What a person may want to know as it happens. */
  onNotice?: (text: string) => void;
  signal?: AbortSignal;
}

export interface ConvertReport {
  source: string;
  destination: string;
  format: ConvertFormat;
  /** Of ternary tensors. */
  type: string;
  files: { path: string; bytes: number }[];
  bytes: number;
  /** Bytes that an earlier, unfinished run had written. */
  resumedBytes: number;
  /** What was read back and found equal; null where that was not wanted. */
  verified: Verified | null;
  /** What each matrix of a float model has lost; null for models that are ternary. */
  quantization: QuantizationError[] | null;
  /** Null where no text was given. */
  perplexity: Perplexities | null;
  seconds: number;
}

/** Part of what an unfinished output must agree in: raised when the same model gives other bytes. */
const WRITER_VERSION = 1;

/**
 * Converts a model.
 *
 * @param path As of `loadModel`.
 * @param destination A `.gguf` or `.trilith` file, or a folder.
 * @throws {UsageError} If the options do not go together, or something is in the way.
 * @throws {UnsupportedModelError} If no reader of that format would run the model as it is.
 * @throws {OutputError} If the destination can't be written.
 */
export async function convertModel(
  path: string,
  destination: string,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  const startedMs = performance.now();
  const format = formatOf(destination, options);
  const target = resolve(destination);
  checkPlace(path, target, options.force);
  const { quantize, i2sLayout } = options;
  await using source = await openSource(path, { quantize, i2sLayout });
  const errors: QuantizationError[] = [];
  const isRounded = source.config.quantization.kind === "absmean";
  const onMatrix = isRounded
    ? (matrix: TernaryMatrix) => void errors.push(quantizationError(matrix))
    : undefined;
  using plan = await planOf(source, target, format, { ...options, onMatrix });
  const takeNotes = () => errors.splice(0);
  const job = { source, plan, target, format, takeNotes, options };
  const { paths, notes, ...written } = await withPlace(target, options, () => write(job));
  const { files, type } = plan;
  return {
    source: path,
    destination,
    format,
    type,
    files: files.map(({ bytes }, i) => ({ path: paths[i], bytes })),
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    ...written,
    quantization: isRounded ? notes as QuantizationError[] : null,
    seconds: (performance.now() - startedMs) / 1000,
  };
}

interface Job {
  source: Source;
  plan: Plan;
  target: string;
  format: ConvertFormat;
  takeNotes: () => unknown[];
  options: ConvertOptions;
}

interface Written extends Staged, Pick<ConvertReport, "resumedBytes" | "verified" | "perplexity"> {
  /** Of the files, in the plan's order. */
  paths: string[];
}

/** All that a kill may interrupt: the same command goes on with it. */
async function write(job: Job): Promise<Written> {
  const { source, plan, target, format, takeNotes, options } = job;
  const staging = await openStaging(target, plan.files, identityOf(source, format, options));
  await restoreReplaced(staging);
  checkTaken(staging, format, options.force);
  const { onProgress, signal, syncBytes } = options;
  const run = options.perplexity && { ...options.perplexity, onProgress, signal };
  // First, as it may find that the text is too short.
  const before = run && await perplexityBefore(source, run);
  const staged = await stage(staging, { takeNotes, syncBytes, onProgress, signal });
  const verified = await completed(job, staging);
  const perplexity = run === undefined
    ? null
    : { before: before!, after: await perplexityAfter(await openable(staging, format), run) };
  return { ...staged, verified, perplexity, paths: await publish(job, staging) };
}

/** Does what is left to do when all parts are written, unless an earlier run has done it. */
async function completed(
  { source, plan, options }: Job,
  staging: Staging,
): Promise<Verified | null> {
  const { whole } = staging.earlier;
  if (whole !== null && (whole.verified !== null || options.verify === false)) {
    return whole.verified as Verified | null;
  }
  if (!isUnmoved(staging)) return null;
  await plan.seal?.(join(staging.folder, plan.files[0].name)).catch((error) => {
    throw outputError(staging.destination, error);
  });
  const verified = options.verify === false ? null : await verify(source, staging, plan, options);
  await refuseChanged(source, staging);
  await endStaging(staging, verified);
  return verified;
}

/** The output while it is not at its place yet; a part of it that is, is followed by the rest. */
async function openable(staging: Staging, format: ConvertFormat): Promise<string> {
  const { folder, files, destination } = staging;
  if (isUnmoved(staging)) {
    return format === "safetensors" ? folder : join(folder, files[0].name);
  }
  if (format === "safetensors") return destination;
  return (await moveFiles(staging))[0];
}

function formatOf(
  destination: string,
  { to, type, pre, layout, embeddingType, splitMaxBytes }: ConvertOptions,
): ConvertFormat {
  const format = to ?? formatOfName(destination);
  const owners: [flag: string, value: unknown, formats: readonly ConvertFormat[]][] = [
    ["--type", type, ["gguf"]],
    ["--pre", pre, ["gguf"]],
    ["--layout", layout, ["packed"]],
    ["--embedding-type", embeddingType, ["gguf", "safetensors"]],
    ["--split-max-size", splitMaxBytes, ["gguf", "safetensors"]],
  ];
  for (const [flag, value, formats] of owners) {
    if (value === undefined || formats.includes(format)) continue;
    throw new UsageError(`Cannot use ${flag} with ${format}: it is for ${formats.join(" and ")}`);
  }
  return format;
}

function formatOfName(destination: string): ConvertFormat {
  if (/\.gguf$/i.test(destination)) return "gguf";
  if (isTrilithFile(destination)) return "packed";
  if (!/\.\w+$/.test(basename(destination)) || /[\\/]$/.test(destination)) return "safetensors";
  throw new UsageError(
    `Cannot tell the format of ${shown(destination)}: give --to ${CONVERT_FORMATS.join(", ")}, ` +
      "or a name that ends in .gguf or .trilith, or a folder's name without an ending",
  );
}

interface Plan extends Disposable {
  files: PlannedFile[];
  /** What is left to do when all parts are written. */
  seal?: (path: string) => Promise<void>;
  /** Of ternary tensors, for people. */
  type: string;
  /** What is left of a factor. */
  writtenFactor: VerifyOptions["writtenFactor"];
}

type PlanOptions = ConvertOptions & { onMatrix?: (matrix: TernaryMatrix) => void };

async function planOf(
  source: Source,
  target: string,
  format: ConvertFormat,
  options: PlanOptions,
): Promise<Plan> {
  if (format === "safetensors") {
    return {
      files: await planSafetensors(source, options),
      type: "packed codes",
      writtenFactor: (factor) => writtenScale(source, factor),
      [Symbol.dispose]: () => {},
    };
  }
  if (format === "packed") return await planTrilith(source, target, options);
  const type = options.type ?? defaultType(source.config.spec);
  return {
    files: await planGguf(source, basename(target), { ...options, type }),
    type,
    writtenFactor: type === "i2_s" ? (factor) => factor : checkedHalf,
    [Symbol.dispose]: () => {},
  };
}

async function planTrilith(source: Source, target: string, options: PlanOptions): Promise<Plan> {
  if (!isTrilithFile(target)) {
    throw new UsageError(
      `Cannot write ${
        shown(target)
      }: a packed file's name must end in .trilith, by which it is known`,
    );
  }
  const { file, layout, seal, [Symbol.dispose]: dispose } = await planPacked(
    source,
    basename(target),
    options,
  );
  return {
    files: [file],
    type: layout.name,
    seal,
    writtenFactor: (factor) => factor,
    [Symbol.dispose]: dispose,
  };
}

/** @throws {OutputError} If what is on disk is not what was meant; it is then removed. */
async function verify(
  source: Source,
  staging: Staging,
  { writtenFactor }: Plan,
  { onProgress, signal }: ConvertOptions,
): Promise<Verified> {
  const { folder, files } = staging;
  const weights = files.length === 1 || /-00001-of-/.test(files[0].name) ? files[0].name : "";
  try {
    await using written = await openSource(join(folder, weights));
    return await verifyModel(source, written, { writtenFactor, onProgress, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    await refuseChanged(source, staging);
    await removeStaging(folder);
    throw error;
  }
}

/** @throws {OutputError} If the source is not what it was when it was opened. */
async function refuseChanged({ checkpoint }: Source, { folder }: Staging): Promise<void> {
  for (const { path, fileBytes, modifiedMs } of checkpoint.files) {
    const now = await stat(path).catch(() => null);
    if (now?.size === fileBytes && Math.floor(now.mtimeMs) === modifiedMs) continue;
    await removeStaging(folder);
    throw new OutputError(
      `Cannot trust what was written as ${shown(path)} was changed meanwhile: run it again`,
    );
  }
}

function identityOf(source: Source, format: ConvertFormat, options: ConvertOptions): string {
  const { type, embeddingType, quantize, layout, i2sLayout } = options;
  return JSON.stringify([
    WRITER_VERSION,
    headerIdentity(source.checkpoint),
    format,
    type,
    embeddingType,
    quantize,
    layout,
    i2sLayout,
  ]);
}

async function publish({ format, options }: Job, staging: Staging): Promise<string[]> {
  // Looked at again: others may have been quicker.
  checkTaken(staging, format, options.force);
  try {
    return format === "safetensors" ? await publishFolder(staging) : await publishFiles(staging);
  } catch (error) {
    throw outputError(staging.destination, error);
  }
}
