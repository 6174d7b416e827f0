import { type Command, Option } from "commander";
import type { ConvertOptions, ConvertReport } from "../runtime/convert/convert.ts";
import { CONVERT_FORMATS, TERNARY_TYPES } from "../runtime/convert/formats.ts";
import { UsageError } from "../runtime/errors.ts";
import type { PerplexityResult } from "../runtime/perplexity.ts";
import { type Context, interruptible } from "./context.ts";
import { addJsonFlag, addQuietFlag, asUsageError, i2sLayoutOption, wholeNumber } from "./flags.ts";
import { bytes, digits, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { checkConvertPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";
import { openTextFile } from "./text_flags.ts";

interface ConvertFlags extends
  Pick<
    ConvertOptions,
    | "to"
    | "type"
    | "layout"
    | "embeddingType"
    | "pre"
    | "quantize"
    | "i2sLayout"
    | "verify"
    | "force"
  > {
  splitMaxSize?: number;
  perplexity?: string;
  ctx?: number;
  chunks?: number;
  quiet?: boolean;
  json?: boolean;
}

export function addConvertCommand(program: Command, context: Context): void {
  const command = program.command("convert")
    .description("rewrite a model in another format")
    .argument("<source>", "model folder or file")
    .argument("<destination>", "name.gguf, name.trilith, or a folder")
    .addOption(
      new Option("--to <format>", "default: as the destination's name ends").choices(
        CONVERT_FORMATS,
      ),
    )
    .addOption(
      new Option("--type <type>", "ternary tensors of a GGUF file").choices(TERNARY_TYPES),
    )
    .addOption(
      new Option("--embedding-type <type>", "embedding and head; default: as they are").choices([
        "f16",
        "bf16",
        "f32",
      ]),
    )
    .option("--pre <name>", "tokenizer.ggml.pre of a GGUF file; default: found by its rules")
    .option("--split-max-size <size>", "most bytes of a file, such as 2G or 500M", sizeInBytes)
    .addOption(
      new Option("--quantize <method>", "ternarise a plain float checkpoint").choices(["absmean"]),
    )
    .addOption(i2sLayoutOption())
    .option("--perplexity <file>", "with --quantize: of this text, before and after")
    .option("-c, --ctx <n>", "tokens of a chunk of that text", wholeNumber("--ctx", 5))
    .option("--chunks <n>", "stop after so many of them", wholeNumber("--chunks", 1))
    .option("--layout <name>", "of a .trilith file; auto: this machine's; default: rows32")
    .option("--no-verify", "do not read the output back")
    .option("--force", "replace what is there");
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", CONVERT_HELP)
    .action((source: string, destination: string, flags: ConvertFlags) =>
      convertCommand(source, destination, flags, context)
    );
}

const CONVERT_HELP = `
A GGUF file's --type is tq2_0 (2.06 bits a weight) or tq1_0 (1.69), which llama.cpp reads, q2_0
(2.25) for models with a factor for each 64 or 128 weights (Bonsai), pq2_0 (2.13), the same for
PrismML's llama.cpp, or i2_s (2), which bitnet.cpp reads. Default: tq2_0, or q2_0 where factors are
finer; i2_s for what llama.cpp does not run: sub-norms with squared ReLU (BitNet 2B4T), norms inside
linears (BitNet-embedding).

The output is made in DESTINATION.partial, read back, compared with the source, and then renamed.
After Ctrl-C or a kill the same command goes on where it stopped.

Examples:
  trilith convert ./Falcon3-1B-Instruct-1.58bit falcon3.gguf
  trilith convert ./bitnet-b1.58-2B-4T bitnet.gguf --type i2_s --embedding-type f16
  trilith convert ./any-llama llama.gguf --quantize absmean
`;

const SIZE = /^(\d+(?:\.\d+)?)([KMGT]?)$/i;

function sizeInBytes(text: string): number {
  const [, number, unit] = SIZE.exec(text.trim()) ?? [];
  const value = Number(number) * 1000 ** " KMGT".indexOf(unit?.toUpperCase() || " ");
  if (value >= 1) return Math.floor(value);
  throw new UsageError(
    `Cannot use --split-max-size ${
      JSON.stringify(text.slice(0, 60))
    }: give bytes such as 500M or 2G`,
  );
}

async function convertCommand(
  name: string,
  destination: string,
  { splitMaxSize, perplexity, ctx, chunks, quiet, json, ...flags }: ConvertFlags,
  { io, engine }: Context,
): Promise<void> {
  const source = await engine.locateModel(name);
  checkConvertPermissions(source, destination, {
    isNative: flags.layout === "auto" || perplexity !== undefined,
  });
  const text = perplexity === undefined ? null : await openTextFile(perplexity, "--perplexity");
  const progress = createProgress(io.stderr, { quiet });
  const report = await interruptible(io, async (signal) => {
    try {
      return await engine.convertModel(source, destination, {
        ...flags,
        splitMaxBytes: splitMaxSize,
        perplexity: text === null ? undefined : { text, chunkTokens: ctx, chunks },
        onProgress: progress.report,
        onNotice(text) {
          progress.done();
          if (!quiet) io.stderr.write(`${text}\n`);
        },
        signal,
      });
    } catch (error) {
      throw asUsageError(error);
    } finally {
      progress.done();
    }
  });
  if (json) printJson(io.stdout, report);
  else printReport(report, io.stdout);
}

function printReport(report: ConvertReport, stdout: Output): void {
  const { files, bytes: size, type, seconds, verified } = report;
  for (const { path, bytes: size } of files) stdout.write(`${path}  ${bytes(size)}\n`);
  stdout.write(`Wrote ${bytes(size)}, ternary tensors in ${type}, in ${digits(seconds)} s\n`);
  if (verified !== null) {
    const { matrices, floats } = verified;
    stdout.write(
      `Read back: ${matrices} ternary matrices and ${floats} others are those of the source\n`,
    );
  }
  if (report.quantization !== null) printErrors(report.quantization, stdout);
  if (report.perplexity !== null) printPerplexities(report.perplexity, stdout);
}

function printErrors(
  errors: NonNullable<ConvertReport["quantization"]>,
  stdout: Output,
): void {
  const rows = errors.map(({ tensor, relativeError, zeros, scale }) => [
    printable(tensor),
    relativeError.toFixed(4),
    `${(100 * zeros).toFixed(1)} %`,
    scale.toPrecision(5),
  ]);
  stdout.write(`\n${table(stdout, ["tensor", "relative error", "zeros", "factor"], rows)}`);
}

function printPerplexities(
  { before, after }: NonNullable<ConvertReport["perplexity"]>,
  stdout: Output,
): void {
  const first = "skipped" in before ? `not measured: ${before.skipped}` : shownResult(before);
  stdout.write(`\nPerplexity before: ${first}\nPerplexity after: ${shownResult(after)}\n`);
}

function shownResult({ perplexity, standardError }: PerplexityResult): string {
  return `${perplexity.toFixed(4)} +/- ${standardError.toFixed(4)}`;
}
