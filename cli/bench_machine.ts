import { type Command, Option } from "commander";
import type { MachineReportOptions } from "../runtime/reports.ts";
import { SHAPES } from "../runtime/shapes.ts";
import { VERSION } from "../runtime/version.ts";
import { type Context, interruptible } from "./context.ts";
import {
  addJsonFlag,
  addQuietFlag,
  asUsageError,
  kernelsOption,
  wholeNumber,
  wholeNumbers,
} from "./flags.ts";
import { printJson } from "./format.ts";
import { checkModelPermissions, checkPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";

interface ReportFlags extends Omit<MachineReportOptions, "peers"> {
  out: string;
  /** File of the peer benchmark. */
  peers?: string;
  json?: boolean;
  quiet?: boolean;
}

/** `bench report`: a report of this machine, with rooflines. */
export function addReportCommand(bench: Command, context: Context): void {
  const command = bench.command("report")
    .description("measure this machine and write a report with rooflines: Markdown, SVG and JSON")
    .option("-o, --out <folder>", "folder of the report, made if need be", "trilith-report")
    .addOption(
      new Option("--shape <name>", "shape of the made-up model").choices(Object.keys(SHAPES))
        .default("bitnet-2b-4t"),
    )
    .option("-p, --prompt-tokens <n>", "tokens to prefill", wholeNumber("--prompt-tokens", 1), 128)
    .option("-n, --gen-tokens <n>", "tokens to decode", wholeNumber("--gen-tokens", 1), 8)
    .option(
      "-r, --repeat <n>",
      "runs of which medians count",
      wholeNumber("--repeat", 1, 10_000),
      5,
    )
    .option(
      "--batch <list>",
      "numbers of sequences that decode together",
      wholeNumbers("--batch", 1, 512),
      [1, 2, 4, 8, 16],
    )
    .option(
      "-t, --threads <list>",
      "thread counts, such as 1,2,8; default: 1 and what Trilith takes by itself",
      wholeNumbers("--threads", 1, 1024),
    )
    .option("--peers <file>", "draw what `bench/peers/run.ts --json` has written into this file")
    .addOption(kernelsOption());
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", HELP)
    .action((flags: ReportFlags) => report(flags, context));
}

const HELP = `
Writes report.md, schemes.svg, shapes.svg, model.svg and report.json, which has all figures: the peaks
of memory and of int8 arithmetic, every kernel of this CPU, every shape of the model, and whole steps
of decode, several sequences and prefill. Takes minutes; leave the machine alone meanwhile.

Examples:
  trilith bench report --out report
  trilith bench report --shape bitnet-700m --threads 1,2,4 --repeat 3
  deno run -A bench/peers/run.ts --json > peers.json && trilith bench report --peers peers.json
`;

async function report(
  { out, json, quiet, peers, ...options }: ReportFlags,
  { io, engine }: Context,
): Promise<void> {
  checkModelPermissions(undefined, options.kernels);
  checkPermissions({ name: "write", path: out });
  await interruptible(io, async (signal) => {
    const progress = createProgress(io.stderr, { quiet });
    const measure = { ...options, onProgress: progress.report, signal };
    try {
      const result = await engine.reportMachine({ out, peers, version: VERSION }, measure);
      progress.done();
      if (json) printJson(io.stdout, result);
      else io.stdout.write(`${out}/report.md\n`);
    } catch (error) {
      throw asUsageError(error);
    } finally {
      progress.done();
    }
  });
}
