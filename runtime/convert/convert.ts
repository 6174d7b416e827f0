/** Rewrites a model in another format, a tensor at a time. */
import fs from "node:fs";
import { basename, dirname, resolve } from "node:path";
import type { FloatType, ModelSpec } from "../../codegen/model_spec.ts";
import { headerIdentity } from "../checkpoint.ts";
import { shown, UsageError } from "../errors.ts";
import type { OnProgress } from "../types.ts";
import { OutputError } from "./errors.ts";
import { CONVERT_FORMATS, type ConvertFormat, type TernaryType } from "./formats.ts";
import { planGguf } from "./gguf_plan.ts";
import type { PlannedFile } from "./plan.ts";
import { openSource, type Source } from "./source.ts";
import { publishFiles, stage, type Staging } from "./staging.ts";

export interface ConvertOptions {
  /** Default: as the destination's name ends. */
  to?: ConvertFormat;
  /** Ternary tensors of a GGUF file. Default: tq2_0, or i2_s where only that has readers. */
  type?: TernaryType;
  /** Embedding and head. Default: as the model has them. */
  embeddingType?: FloatType;
  /** tokenizer.ggml.pre of a GGUF file. Default: by the tokenizer's own rules. */
  pre?: string;
  /** Bytes that no file is to exceed. Default: one file. */
  splitMaxBytes?: number;
  /** Ternarise the linears of a plain float checkpoint. */
  quantize?: "absmean";
  /** Replace what is there. */
  force?: boolean;
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
  seconds: number;
}

/** Part of what an unfinished output must agree in: raised when the same model gives other bytes. */
const WRITER_VERSION = 1;

/**
 * Converts a model.
 *
 * @param path As of `loadModel`.
 * @param destination A `.gguf` file.
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
  await using source = await openSource(path, { quantize: options.quantize });
  const type = options.type ?? defaultType(source.config.spec);
  const files = await planGguf(source, basename(target), { ...options, type });
  checkOthers(target, files, options);
  const staging = await stage(target, files, {
    identity: identityOf(source, format, { ...options, type }),
    onProgress: options.onProgress,
    signal: options.signal,
  });
  const paths = await publish(staging, target);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    source: path,
    destination,
    format,
    type,
    files: files.map(({ bytes }, i) => ({ path: paths[i], bytes })),
    bytes,
    resumedBytes: staging.resumedBytes,
    seconds: (performance.now() - startedMs) / 1000,
  };
}

function formatOf(destination: string, { to }: ConvertOptions): ConvertFormat {
  if (to !== undefined) return to;
  if (/\.gguf$/i.test(destination)) return "gguf";
  throw new UsageError(
    `Cannot tell the format of ${shown(destination)}: give --to ${CONVERT_FORMATS.join(", ")}, ` +
      "or a name that ends in .gguf",
  );
}

/** llama.cpp has no graph for sub-norms with squared ReLU, so only I2_S has readers for it. */
function defaultType(spec: ModelSpec): TernaryType {
  return spec.subNorms && spec.hiddenAct === "relu2" ? "i2_s" : "tq2_0";
}

function checkPlace(path: string, target: string, { force }: ConvertOptions): void {
  const from = resolve(path);
  if (target === from || from.startsWith(`${target}/`)) {
    throw new UsageError(`Cannot convert ${shown(path)} into itself: give another destination`);
  }
  if (!fs.existsSync(dirname(target))) {
    throw new UsageError(
      `Cannot write ${shown(target)}: its folder is not there: make it first`,
    );
  }
  if (fs.existsSync(target) && !force) throw thereError(target);
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
  const { type, embeddingType, quantize } = options;
  return JSON.stringify([
    WRITER_VERSION,
    headerIdentity(source.checkpoint),
    format,
    type,
    embeddingType,
    quantize,
  ]);
}

async function publish(staging: Staging, _target: string): Promise<string[]> {
  return await publishFiles(staging);
}
