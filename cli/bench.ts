import { type Command, Option } from "commander";
import type { BenchOptions, BenchReport, Rate } from "../runtime/reports.ts";
import { SHAPES } from "../runtime/shapes.ts";
import { type Context, interruptible } from "./context.ts";
import { addJsonFlag, addQuietFlag, asUsageError, kernelsOption, wholeNumber } from "./flags.ts";
import { bytes, digits, fields, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { checkModelPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";
import { plural } from "./statistics.ts";

interface BenchFlags extends BenchOptions {
  json?: boolean;
  quiet?: boolean;
}

export const BENCH_SHAPES: readonly string[] = Object.keys(SHAPES);

export function addBenchCommand(program: Command, context: Context): void {
  const command = program.command("bench")
    .description("measure speed on this machine, beside its memory's peak")
    .addOption(
      new Option("-m, --model <path>", "the model to run; default: the embedded story model")
        .conflicts("shape"),
    )
    .addOption(
      new Option("--shape <name>", "random ternary weights of this shape, made in memory")
        .choices(BENCH_SHAPES),
    )
    .option("-p, --prompt-tokens <n>", "tokens to prefill", wholeNumber("--prompt-tokens", 1), 128)
    .option("-n, --gen-tokens <n>", "tokens to decode", wholeNumber("--gen-tokens", 1), 32)
    .option("-t, --threads <n>", "native threads", wholeNumber("--threads", 1, 1024))
    .option("-r, --repeat <n>", "runs to average", wholeNumber("--repeat", 1, 10_000), 3)
    .addOption(kernelsOption());
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", BENCH_HELP)
    .action((flags: BenchFlags) => bench(flags, context));
}

const BENCH_HELP = `
Examples:
  trilith bench
  trilith bench --shape bitnet-2b-4t --threads 2 --repeat 5 --json
`;

async function bench({ json, quiet, ...options }: BenchFlags, context: Context): Promise<void> {
  const { io, engine } = context;
  checkModelPermissions(options.model, options.kernels);
  await interruptible(io, async (signal) => {
    const progress = createProgress(io.stderr, { quiet });
    try {
      const report = await engine.runBench({ ...options, onProgress: progress.report, signal });
      progress.done();
      if (json) printJson(io.stdout, report);
      else printReport(report, options.repeat, io.stdout);
    } catch (error) {
      throw asUsageError(error);
    } finally {
      progress.done();
    }
  });
}

function printReport(report: BenchReport, repeat: number, stdout: Output): void {
  const { shape, threads, cpu, prefill, decode, memory, kernels } = report;
  const rows = [
    [`prefill ${prefill.promptTokens}`, ...rateCells(prefill)],
    [`decode ${decode.genTokens}`, ...rateCells(decode)],
  ];
  stdout.write(`${shape} on ${cpu}, ${plural(threads, "thread")}, ${plural(repeat, "run")}\n\n`);
  stdout.write(table(stdout, ["test", "tokens/s", "+/-"], rows));
  const roofline = `${(100 * memory.rooflineFraction).toFixed(1)} % of the peak`;
  stdout.write(`\n${
    fields(stdout, [
      ["ternary work", `${digits(prefill.ternaryMacsPerSecondPerThread / 1e9)} G MAC/s a thread`],
      ["weights in memory", bytes(memory.weightBytes)],
      ["weights read a token", bytes(decode.weightBytesPerToken)],
      ["decode reads", `${bytes(decode.bytesPerSecond)}/s, ${roofline}`],
      ["memory's peak", `${bytes(memory.peakReadBytesPerSecond)}/s`],
      ["most memory used", bytes(memory.peakRssBytes)],
    ])
  }`);
  if (kernels.length === 0) return;
  const kernelRows = kernels.map((kernel) => [
    kernel.op,
    kernel.n,
    kernel.k,
    kernel.scheme,
    kernel.isa,
    digits(kernel.bitsPerWeight),
  ]);
  stdout.write(
    `\n${table(stdout, ["op", "n", "k", "scheme", "isa", "bits a weight"], kernelRows)}`,
  );
}

function rateCells({ tokensPerSecond, stdev }: Rate): string[] {
  return [digits(tokensPerSecond), digits(stdev)];
}
