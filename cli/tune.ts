import { type Command, Option } from "commander";
import type { Finding } from "../kernels/tuner.ts";
import type { ThreadTime, TuneOptions, TuneReport } from "../runtime/reports.ts";
import { BENCH_SHAPES } from "./bench.ts";
import { type Context, interruptible } from "./context.ts";
import {
  addJsonFlag,
  addQuietFlag,
  asUsageError,
  numberParser,
  schemeOption,
  wholeNumber,
} from "./flags.ts";
import { type Cell, digits, paint, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { withModelPath } from "./model_path.ts";
import { checkModelPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";
import { plural } from "./statistics.ts";

interface TuneFlags extends TuneOptions {
  json?: boolean;
  quiet?: boolean;
}

const PROMPT_SHARE = { flag: "--prompt-tokens-per-token", least: 0, most: 1000, whole: false };

export function addTuneCommand(program: Command, context: Context): void {
  const command = program.command("tune")
    .description("measure which kernels are best for a model on this machine, and keep the choice")
    .addOption(
      new Option("-m, --model <path>", "the model; default: the embedded story model")
        .conflicts("shape"),
    )
    .addOption(new Option("--shape <name>", "a well-known shape").choices(BENCH_SHAPES))
    .option("-t, --threads <n>", "native threads", wholeNumber("--threads", 1, 1024))
    .addOption(schemeOption())
    .option("--seconds <n>", "stop after so long; default: 60", wholeNumber("--seconds", 1, 3600))
    .option(
      `${PROMPT_SHARE.flag} <x>`,
      "tokens of prompts that count beside one generated token; default: 0.5",
      numberParser(PROMPT_SHARE),
    );
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", TUNE_HELP)
    .action((flags: TuneFlags) => tune(flags, context));
}

const TUNE_HELP = `
Every kernel that this CPU can run is compiled and measured beside the others: generation with
weights from memory, prompts with weights in the caches. The best is proved and kept, with all that
was measured, for models with the same matrices on the same CPU; generate, chat and bench then use
it. A large model is tuned at its first use (20 s at most) unless --no-tune, TRILITH_TUNE=0 or CI
is set. All kernels give the same text: only the speed changes.

Columns: time of all ternary matrices for one generated token, and for one token of a prompt; bytes
read a second beside the memory's peak; both times together / those of the default in the same round.

Examples:
  trilith tune --model ./bitnet-b1.58-2B-4T
  trilith tune --shape bitnet-2b-4t --threads 1 --json
  trilith tune --shape llama3-8b --prompt-tokens-per-token 8
`;

async function tune({ json, quiet, ...flags }: TuneFlags, context: Context): Promise<void> {
  const { io, engine } = context;
  const options = await withModelPath(context, flags);
  checkModelPermissions(options.model);
  await interruptible(io, async (signal) => {
    const progress = createProgress(io.stderr, { quiet });
    try {
      const report = await engine.tuneModel({ ...options, onProgress: progress.report, signal });
      progress.done();
      if (json) printJson(io.stdout, report);
      else printReport(report, io.stdout);
    } catch (error) {
      throw asUsageError(error);
    } finally {
      progress.done();
    }
  });
}

function printReport(report: TuneReport, stdout: Output): void {
  const { model, cpu, threads, kernel, findings, seconds } = report;
  const where = `${printable(model)} on ${cpu.modelName}, ${plural(threads, "thread")}`;
  stdout.write(`${where}: ${paint(stdout, "bold", kernel)}\n${report.why}\n\n`);
  stdout.write(findingTable(findings, stdout));
  for (const { kernel, outcome, why, figures } of findings) {
    if (figures === undefined) stdout.write(`${kernel} was ${outcome}: ${why}\n`);
  }
  if (findings.every(({ macsPerCycle }) => macsPerCycle === undefined)) stdout.write(NO_MODEL);
  if (isBusy(report)) stdout.write(BUSY);
  stdout.write(`\n${matrixTable(report, stdout)}`);
  if (report.threadTimes) stdout.write(`\n${threadTable(report, report.threadTimes, stdout)}`);
  stdout.write(`\nTook ${digits(seconds)} s, kept in ${report.path}\n`);
}

/** Half of the measurements of a large matrix are further apart than this only beside other work. */
const BUSY_SPREAD = 0.3;
const NO_MODEL =
  "No kernel was left out by llvm-mca's estimate: it is not installed or does not know this CPU\n";
const BUSY = "\nThe machine was busy: tune again when it is idle\n";

function isBusy({ findings, kernel }: TuneReport): boolean {
  const { measurements } = findings.find((finding) => finding.kernel === kernel)!.figures!;
  return measurements.some(({ n, k, tokens, spread }) =>
    tokens === 1 && n * k > 1e6 && spread > BUSY_SPREAD
  );
}

function findingTable(findings: readonly Finding[], stdout: Output): string {
  const rows = findings.flatMap(({ kernel, bitsPerWeight, outcome, figures }): Cell[][] => {
    if (figures === undefined) return [];
    const { decodeNs, promptNs, peakFraction, ratio, spread } = figures;
    return [[
      kernel,
      digits(bitsPerWeight),
      digits(decodeNs / 1e6),
      digits(promptNs / 1e6),
      percent(peakFraction),
      ratio.toFixed(3),
      percent(spread),
      outcome,
    ]];
  });
  const headings = [
    "kernel",
    "bits",
    "token ms",
    "prompt ms",
    "of peak",
    "ratio",
    "+/-",
    "outcome",
  ];
  return table(stdout, headings, rows.toSorted((a, b) => Number(a[5]) - Number(b[5])));
}

/** How quick the chosen kernel is on each matrix. */
function matrixTable({ findings, kernel, batches = [] }: TuneReport, stdout: Output): string {
  const { figures } = findings.find((finding) => finding.kernel === kernel)!;
  const measurements = [...figures!.measurements, ...batches];
  const rows = measurements.toSorted((a, b) => a.tokens - b.tokens).map((
    { n, k, tokens, medianNs, spread },
  ) => [
    n,
    k,
    tokens,
    digits(medianNs / 1e3),
    digits(n * k * tokens / medianNs),
    percent(spread),
  ]);
  return table(stdout, ["n", "k", "tokens", "us", "G weights/s", "+/-"], rows);
}

/** With how many threads the chosen kernel is how quick. */
function threadTable(
  { advisedThreads, threads: used }: TuneReport,
  times: readonly ThreadTime[],
  stdout: Output,
): string {
  const rows = times.map(({ threads, decodeNs, promptNs }) => [
    threads,
    digits(decodeNs / 1e6),
    digits(promptNs / 1e6),
    threads === advisedThreads ? "enough" : "",
  ]);
  const shown = table(stdout, ["threads", "token ms", "prompt ms", ""], rows);
  if (advisedThreads === undefined || advisedThreads >= used) return shown;
  return `${shown}More threads are no quicker: --threads ${advisedThreads} leaves the others their cores\n`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
