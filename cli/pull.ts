import type { Command } from "commander";
import { reasonOf } from "../runtime/errors.ts";
import type { PullReport } from "../runtime/hub/pull.ts";
import { type Context, interruptible } from "./context.ts";
import { addJsonFlag, addQuietFlag, collected, wholeNumber } from "./flags.ts";
import { bytes, digits, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { withPullProgress } from "./model_path.ts";
import { checkHubPermissions } from "./permissions.ts";

interface PullFlags {
  include?: string[];
  exclude?: string[];
  connections?: number;
  dryRun?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addPullCommand(program: Command, context: Context): void {
  const command = program.command("pull")
    .description("fetch a model from the Hugging Face hub into the cache that its own tools use")
    .argument("<model>", "ORG/NAME, with @REVISION and :FILE behind it if need be")
    .option("--include <pattern>", "fetch these files alone; repeatable", collected("--include"))
    .option("--exclude <pattern>", "leave out these files; repeatable", collected("--exclude"))
    .option(
      "--connections <n>",
      "requests at once; default: 4",
      wholeNumber("--connections", 1, 64),
    )
    .option("--dry-run", "say what would be fetched, and fetch nothing");
  addQuietFlag(addJsonFlag(command))
    .addHelpText("after", PULL_HELP)
    .action((model: string, flags: PullFlags) => pull(model, flags, context));
}

const PULL_HELP = `
Names: \`list --remote\` has some that are known to be ternary. hf:ORG/NAME and the model's address
do as well. :FILE is a GGUF file of it, or a word of its name such as TQ2_0.

Files: config, tokenizer and safetensors, or the ternary GGUF file where there are none. Pickles
are never fetched by themselves. Patterns are as huggingface_hub has them: * stands for / too.

A pull that was stopped goes on where it was. Each file is checked by its SHA-256 before it counts.
HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean in Python.

--json prints {"model", "repo", "revision", "commit", "path", "files": [{"path", "bytes", "hash",
"state"}], "bytes", "neededBytes", "seconds"}; state is present, fetched or missing.

Examples:
  trilith pull microsoft/bitnet-b1.58-2B-4T
  trilith pull microsoft/bitnet-b1.58-2B-4T-gguf:i2_s
  trilith pull hf:tiiuae/Falcon-E-3B-Instruct@main --dry-run
  HF_ENDPOINT=https://hub.example.org trilith pull org/name --include "*.json" --include "*.gguf"
`;

async function pull(
  model: string,
  { json, quiet, ...options }: PullFlags,
  { io, engine }: Context,
): Promise<void> {
  checkHubPermissions();
  await interruptible(io, async (signal) => {
    const report = await withPullProgress(
      io,
      quiet,
      (display) => engine.pullModel(model, { ...options, ...display, signal }),
    );
    if (json) return printJson(io.stdout, report);
    printReport(report, options.dryRun ?? false, io.stdout);
    if (report.path !== null && !options.dryRun) {
      io.stdout.write(await advice(report.path, report.model, engine));
    }
  });
}

function printReport(report: PullReport, isDryRun: boolean, stdout: Output): void {
  const { files, neededBytes, seconds, path } = report;
  if (isDryRun) {
    const rows = files.map((file) => [printable(file.path), bytes(file.bytes), file.state]);
    stdout.write(table(stdout, ["file", "size", "state"], rows));
    stdout.write(`\n${bytes(neededBytes)} would be fetched\n`);
    return;
  }
  const speed = `${bytes(neededBytes)} in ${digits(seconds)} s`;
  stdout.write(neededBytes === 0 ? "All of it is here\n" : `Fetched ${speed}\n`);
  if (path !== null) stdout.write(`${path}\n`);
}

/** What the model is for, or why it does not run: better known now than later. */
async function advice(path: string, model: string, engine: Context["engine"]): Promise<string> {
  try {
    const { embedding, chatTemplate, quantize } = await engine.inspectModel(path, {});
    const command = embedding !== null
      ? `embed --model ${model} "Once upon a time"`
      : chatTemplate !== null
      ? `chat --model ${model}`
      : `generate --model ${model} "Once upon a time"`;
    return `Try it: trilith ${command}${quantize === null ? "" : ` --quantize ${quantize}`}\n`;
  } catch (error) {
    return `It does not run here: ${printable(reasonOf(error))}\n`;
  }
}
