import { type Command, Option } from "commander";
import type { BenchOptions } from "../runtime/reports.ts";
import { MAX_POSITIONS } from "../runtime/kv_cache.ts";
import { SHAPES } from "../runtime/shapes.ts";
import { type Context, interruptible } from "./context.ts";
import { addReportCommand } from "./bench_machine.ts";
import { printReport } from "./bench_report.ts";
import {
  addJsonFlag,
  addQuietFlag,
  asUsageError,
  headOption,
  i2sLayoutOption,
  kernelsOption,
  kvTypeOption,
  numberParser,
  schemeOption,
  wholeNumber,
  wholeNumbers,
} from "./flags.ts";
import { printJson } from "./format.ts";
import { withModelPath } from "./model_path.ts";
import { checkModelPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";

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
    .addOption(kernelsOption())
    .addOption(headOption())
    .addOption(schemeOption())
    .addOption(kvTypeOption())
    .addOption(i2sLayoutOption())
    .option(
      "-c, --context <n>",
      "decode after so many tokens, which are not computed, beside decoding from the start",
      wholeNumber("--context", 1, MAX_POSITIONS),
    )
    .option("--profile", "divide the time of a step into its phases")
    .option(
      "--batch <list>",
      "measure steps of so many sequences that decode together, such as 1,2,4,8,16",
      wholeNumbers("--batch", 1, 512),
    )
    .option("--energy", "joules a token, from the machine's own counters (RAPL)")
    .option(
      "--cost <eur>",
      "what the machine costs an hour, in euros: prints the price of a million tokens",
      numberParser({ flag: "--cost", least: 0, most: 1e6, aboveLeast: true }),
    );
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", BENCH_HELP)
    .action((flags: BenchFlags) => bench(flags, context))
    .enablePositionalOptions();
  addReportCommand(command, context);
}

const BENCH_HELP = `
Examples:
  trilith bench
  trilith bench --shape bitnet-2b-4t --threads 2 --repeat 5 --json
  trilith bench --shape bitnet-2b-4t --profile
  trilith bench --shape bitnet-2b-4t --context 4096 --kv-type int8
  trilith bench --shape bitnet-2b-4t --batch 1,2,4,8,16 --gen-tokens 8
  sudo trilith bench --energy
  trilith bench --shape bitnet-2b-4t --cost 0.04
`;

async function bench({ json, quiet, ...flags }: BenchFlags, context: Context): Promise<void> {
  const { io, engine } = context;
  const options = await withModelPath(context, flags);
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
