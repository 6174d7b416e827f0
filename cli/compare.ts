import { type Command, Option } from "commander";
import { KV_TYPES } from "../codegen/model_spec.ts";
import { KERNEL_CHOICES } from "../codegen/isa.ts";
import type { CompareReport, Estimate } from "../runtime/compare.ts";
import { UsageError } from "../runtime/errors.ts";
import { type TextSource, textSource } from "../runtime/text_source.ts";
import type { LoadOptions, Model } from "../runtime/types.ts";
import { type Context, interruptible } from "./context.ts";
import { addModelFlags, asUsageError, i2sLayoutOption, type ModelFlags } from "./flags.ts";
import { fields, grouped, printable, printJson } from "./format.ts";
import type { Io, Output } from "./io.ts";
import { loadModel } from "./loading.ts";
import {
  addTextFlags,
  chunkOptionsOf,
  CHUNKS_HELP,
  openText,
  TextClock,
  type TextFlags,
} from "./text_flags.ts";

interface CompareFlags extends Omit<ModelFlags, "model">, TextFlags {
  file?: string;
  bKernels?: LoadOptions["kernels"];
  bScheme?: string;
  bKvType?: LoadOptions["kvType"];
  bQuantize?: LoadOptions["quantize"];
  bI2sLayout?: LoadOptions["i2sLayout"];
}

export function addCompareCommand(program: Command, context: Context): void {
  const command = program.command("compare")
    .description("how far two models, or one under two settings, are apart on a text")
    .argument("[a]", "model folder or file; default: the embedded story model")
    .argument("[b]", "what it is compared with; default: the same model, with the --b- flags")
    .option("--file <file>", "UTF-8 text; -: standard input; default: 24 kB of a children's book");
  addModelFlags(addTextFlags(command), { model: false })
    .addOption(new Option("--b-kernels <isa>", "B's kernels").choices(KERNEL_CHOICES))
    .option("--b-scheme <name>", "how B's kernels multiply")
    .addOption(new Option("--b-kv-type <type>", "type of B's keys and values").choices(KV_TYPES))
    .addOption(new Option("--b-quantize <method>", "ternarise B").choices(["absmean"]))
    .addOption(i2sLayoutOption("--b-i2s-layout", "B's"))
    .addHelpText("after", COMPARE_HELP)
    .action((a: string | undefined, b: string | undefined, flags: CompareFlags) =>
      compareCommand({ a, b }, flags, context)
    );
}

const COMPARE_HELP = `
Flags are for both; what has a --b- flag is another for B. Both run the same text, and their
logits are compared at every predicted token.
${CHUNKS_HELP}
Examples:
  trilith compare --b-kernels reference --chunks 1
  trilith compare ./bitnet-b1.58-2B-4T --b-kv-type int8 --file wiki.test.raw
  trilith compare ./bitnet-b1.58-2B-4T ./bitnet-b1.58-2B-4T.gguf --json
`;

const B_FLAGS = ["bKernels", "bScheme", "bKvType", "bQuantize", "bI2sLayout"] as const;

async function compareCommand(
  { a, b }: { a?: string; b?: string },
  flags: CompareFlags,
  context: Context,
): Promise<void> {
  if (b === undefined && B_FLAGS.every((name) => flags[name] === undefined)) {
    throw new UsageError(
      "Cannot compare a model with itself under the same settings: name a second model, or give " +
        "--b-kernels, --b-scheme, --b-kv-type, --b-quantize or --b-i2s-layout",
    );
  }
  const { io } = context;
  const text = await textOf(flags.file, io);
  await interruptible(io, async (signal, interrupts) => {
    const load = (side: ModelFlags) => loadModel(context, side, signal, interrupts);
    await using modelA = await load({ ...flags, model: a });
    await using modelB = await load(flagsOfB(flags, b ?? a));
    const report = await measure([modelA, modelB], text, flags, io, signal);
    if (flags.json) printJson(io.stdout, report);
    else printReport(report, io.stdout);
  });
}

async function textOf(file: string | undefined, io: Io): Promise<TextSource> {
  if (file !== undefined) return await openText(file, io);
  const { SAMPLE_TEXT } = await import("../runtime/sample_text.ts");
  return textSource(SAMPLE_TEXT);
}

function flagsOfB(flags: CompareFlags, model: string | undefined): ModelFlags {
  const kernels = flags.bKernels ?? flags.kernels;
  // A's scheme is of A's kernels.
  const scheme = flags.bScheme ?? (flags.bKernels === undefined ? flags.scheme : undefined);
  const kvType = flags.bKvType ?? flags.kvType;
  const quantize = flags.bQuantize ?? flags.quantize;
  const i2sLayout = flags.bI2sLayout ?? flags.i2sLayout;
  return { ...flags, model, kernels, scheme, kvType, quantize, i2sLayout };
}

async function measure(
  [a, b]: readonly [Model, Model],
  text: TextSource,
  flags: CompareFlags,
  { stderr }: Io,
  signal: AbortSignal,
): Promise<CompareReport> {
  const { compareModels } = await import("../runtime/compare.ts");
  const clock = new TextClock();
  try {
    return await compareModels(a, b, text, {
      ...chunkOptionsOf(flags),
      signal,
      onChunk(progress) {
        if (flags.quiet) return;
        const { meanDivergence, identicalPositions, positions } = progress;
        stderr.write(
          `${clock.line(progress)} divergence ${number(meanDivergence)}, ` +
            `${identicalPositions} of ${positions} the same bits\n`,
        );
      },
    });
  } catch (error) {
    throw asUsageError(error);
  }
}

function printReport(report: CompareReport, stdout: Output): void {
  const { a, b, divergence, topAgreement, logitDifference, perplexityDifference } = report;
  const { positions, identicalPositions, chunks } = report;
  const side = (model: typeof a) =>
    `${printable(model.name)} (${model.kernels}, ${model.scheme}): perplexity ` +
    `${model.perplexity.toFixed(4)} +/- ${model.standardError.toFixed(4)}`;
  const isAll = identicalPositions === positions;
  stdout.write(fields(stdout, [
    ["A", side(a)],
    ["B", side(b)],
    ["predicted tokens", `${grouped(positions)} in ${grouped(chunks)} chunks`],
    [
      "the same bits",
      `${grouped(identicalPositions)} of ${grouped(positions)}${isAll ? ": lossless" : ""}`,
    ],
    [
      "KL divergence",
      `${estimate(divergence)} nats; median ${number(divergence.median)}, ` +
      `99 % below ${number(divergence.p99)}, largest ${number(divergence.max)}`,
    ],
    ["same likeliest token", percentage(topAgreement)],
    [
      "logits apart",
      `${number(logitDifference.mean)} on average, ${number(logitDifference.max)} at most`,
    ],
    ["perplexity of B less A", estimate(perplexityDifference)],
  ]));
}

function estimate({ mean, standardError }: Estimate): string {
  return `${number(mean)} +/- ${number(standardError)}`;
}

function percentage({ mean, standardError }: Estimate): string {
  return `${(100 * mean).toFixed(2)} % +/- ${(100 * standardError).toFixed(2)} %`;
}

/** Three digits, of small numbers as well; 0 is none at all. */
function number(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) < 0.001 || Math.abs(value) >= 1e6
    ? value.toExponential(2)
    : String(Number(value.toPrecision(3)));
}
