/** Rewrites a model in another format, a tensor at a time. */
import fs from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
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
import { publishFiles, publishFolder, removeStaging, stage, type Staging } from "./staging.ts";
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
  /** A text whose perplexity is measured before and after. */
  perplexity?: Pick<PerplexityRun, "text" | "chunkTokens" | "chunks">;
  onProgress?: OnProgress;
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
  checkPlace(path, target, options);
  const { quantize, i2sLayout } = options;
  await using source = await openSource(path, { quantize, i2sLayout });
  const errors: QuantizationError[] = [];
  const isRounded = source.config.quantization.kind === "absmean";
  const onMatrix = isRounded
    ? (matrix: TernaryMatrix) => void errors.push(quantizationError(matrix))
    : undefined;
  using plan = await planOf(source, target, format, { ...options, onMatrix });
  if (format !== "safetensors") checkOthers(target, plan.files, options);
  const { onProgress, signal } = options;
  const run = options.perplexity && { ...options.perplexity, onProgress, signal };
  // First, as it may find that the text is too short.
  const before = run && await perplexityBefore(source, run);
  const identity = identityOf(source, format, options);
  const takeNotes = () => errors.splice(0);
  const staging = await stage(target, plan.files, { identity, takeNotes, onProgress, signal });
  await plan.seal?.(join(staging.folder, plan.files[0].name));
  const verified = options.verify === false ? null : await verify(source, staging, plan, options);
  const paths = await publish(staging, target, format);
  const { files, type } = plan;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    source: path,
    destination,
    format,
    type,
    files: files.map(({ bytes }, i) => ({ path: paths[i], bytes })),
    bytes,
    resumedBytes: staging.resumedBytes,
    verified,
    quantization: isRounded ? staging.notes as QuantizationError[] : null,
    perplexity: run === undefined ? null : {
      before: before!,
      after: await perplexityAfter(format === "safetensors" ? target : paths[0], run),
    },
    seconds: (performance.now() - startedMs) / 1000,
  };
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
  { folder, files }: Staging,
  { writtenFactor }: Plan,
  { onProgress, signal }: ConvertOptions,
): Promise<Verified> {
  const weights = files.length === 1 || /-00001-of-/.test(files[0].name) ? files[0].name : "";
  try {
    await using written = await openSource(join(folder, weights));
    return await verifyModel(source, written, { writtenFactor, onProgress, signal });
  } catch (error) {
    if (!signal?.aborted) await removeStaging(folder);
    throw error;
  }
}

function checkPlace(path: string, target: string, { force }: ConvertOptions): void {
  const from = resolve(path);
  if (target === from || from.startsWith(`${target}${sep}`)) {
    throw new UsageError(`Cannot convert ${shown(path)} into itself: give another destination`);
  }
  if (!fs.existsSync(dirname(target))) {
    throw new UsageError(
      `Cannot write ${shown(target)}: its folder is not there: make it first`,
    );
  }
  if (!fs.existsSync(target)) return;
  if (!force) throw thereError(target);
  const isFolder = fs.statSync(target).isDirectory();
  if (isFolder && !fs.existsSync(join(target, "config.json"))) {
    throw new UsageError(
      `Cannot replace ${shown(target)}: it is a folder without config.json: give another name`,
    );
  }
}

function thereError(target: string): UsageError {
  return new UsageError(`Cannot write ${shown(target)}: it is there already: add --force`);
}

/** The files of a split output have names of their own. */
function checkOthers(
  target: string,
  files: readonly PlannedFile[],
  { force }: ConvertOptions,
): void {
  for (const { name } of files) {
    const path = resolve(dirname(target), name);
    if (!fs.existsSync(path)) continue;
    if (!force) throw thereError(path);
    if (fs.statSync(path).isDirectory()) {
      throw new OutputError(`Cannot write ${shown(path)}: it is a folder: give another name`);
    }
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

async function publish(staging: Staging, target: string, format: ConvertFormat) {
  try {
    return format === "safetensors"
      ? await publishFolder(staging, target)
      : await publishFiles(staging);
  } catch (error) {
    throw outputError(target, error);
  }
}
