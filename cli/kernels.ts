import { type Command, Option } from "commander";
import { ISAS } from "../codegen/isa.ts";
import type { CachedKernel, KnownTuning } from "../runtime/reports.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { BENCH_SHAPES } from "./bench.ts";
import { type Context, interruptible } from "./context.ts";
import { addJsonFlag, addQuietFlag, asUsageError } from "./flags.ts";
import { bytes, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { withModelPath } from "./model_path.ts";
import { checkCachePermissions, checkCompilerPermission, checkPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";
import { plural } from "./statistics.ts";

interface ShowFlags {
  model?: string;
  shape?: string;
  isa?: string;
  asm?: boolean;
  json?: boolean;
  quiet?: boolean;
}

interface ClearFlags {
  tunings?: boolean;
  json?: boolean;
}

export function addKernelsCommand(program: Command, context: Context): void {
  const kernels = program.command("kernels")
    .description("the generated kernels: list the compiled ones, show their Zig, clear them")
    .addHelpText("after", KERNELS_HELP);
  addJsonFlag(
    kernels.command("list").description(
      "compiled kernels in the cache, and which was tuned for what",
    ),
  )
    .addHelpText("after", LIST_HELP)
    .action((flags: { json?: boolean }) => list(flags, context));
  const show = kernels.command("show")
    .description("the generated Zig of a model's kernels, or its assembly")
    .addOption(
      new Option("-m, --model <path>", "the model; default: the embedded story model")
        .conflicts("shape"),
    )
    .addOption(new Option("--shape <name>", "a well-known shape").choices(BENCH_SHAPES))
    .addOption(new Option("--isa <isa>", "instruction set; default: this CPU's best").choices(ISAS))
    .option("--asm", "assembly in place of Zig");
  addQuietFlag(addJsonFlag(show))
    .addHelpText("after", SHOW_HELP)
    .action((flags: ShowFlags) => showSources(flags, context));
  addJsonFlag(
    kernels.command("clear").description("delete the compiled kernels")
      .option("--tunings", "also what \`tune\` has found out"),
  )
    .action((flags: ClearFlags) => clear(flags, context));
}

const KERNELS_HELP = `
Examples:
  trilith kernels list
  trilith kernels show --isa avx2 > kernels.zig
  trilith kernels clear
`;

const LIST_HELP = `
--json prints one list: compiled kernels ("type": "library"), then tunings ("type": "tuning").
A model without a tuning uses the default kernels of the CPU.
`;

const SHOW_HELP = `
--json prints [{"name", "isa", "source", "assembly"}].

Examples:
  trilith kernels show --shape bitnet-2b-4t --isa avx512
  trilith kernels show --model ./bitnet-b1.58-2B-4T --asm | less
`;

async function list({ json }: { json?: boolean }, { io, engine }: Context): Promise<void> {
  checkCachePermissions();
  const cached = await engine.listKernels();
  const tunings = await engine.listTunings();
  if (json) return printJson(io.stdout, [...cached, ...tunings]);
  if (cached.length === 0) {
    io.stderr.write("No kernels are compiled yet: the first generate or bench compiles some\n");
  } else {
    io.stdout.write(libraryTable(cached, io.stdout));
  }
  if (tunings.length > 0) io.stdout.write(`\n${tuningTable(tunings, io.stdout)}`);
}

function libraryTable(cached: readonly CachedKernel[], stdout: Output): string {
  const rows = cached.map(({ id, isa, libraryBytes, compiledAt }) => [
    id.slice(0, 16),
    isa ?? "",
    bytes(libraryBytes),
    compiledAt,
  ]);
  return table(stdout, ["id", "isa", "size", "compiled"], rows);
}

/** Which kernel models of each shape use, and why. */
function tuningTable(tunings: readonly KnownTuning[], stdout: Output): string {
  const rows = tunings.map(({ model, threads, kernel, state, tunedAt, why }) => [
    printable(model),
    threads,
    kernel,
    state,
    tunedAt.slice(0, 16),
    why,
  ]);
  return table(stdout, ["tuned for", "threads", "kernel", "state", "when", "why"], rows);
}

async function showSources(
  { asm, json, quiet, ...flags }: ShowFlags,
  context: Context,
): Promise<void> {
  const { io, engine } = context;
  const options = await withModelPath(context, flags);
  checkPermissions({ name: "read", path: options.model ?? embeddedModelFolder() });
  if (asm) {
    checkCachePermissions();
    checkCompilerPermission();
  }
  await interruptible(io, async (signal) => {
    const progress = createProgress(io.stderr, { quiet });
    const sources = await engine.kernelSources({
      ...options,
      assembly: asm,
      onProgress: progress.report,
      signal,
    }).catch((error) => {
      throw asUsageError(error);
    }).finally(() => progress.done());
    if (json) return printJson(io.stdout, sources);
    for (const { source, assembly } of sources) io.stdout.write(endLine(asm ? assembly! : source));
  });
}

function endLine(text: string): string {
  return text.endsWith("\n") ? text : `${text}\n`;
}

async function clear({ json, tunings }: ClearFlags, { io, engine }: Context): Promise<void> {
  checkCachePermissions();
  const cleared = await engine.clearKernels({ tunings });
  if (json) return printJson(io.stdout, cleared);
  io.stdout.write(
    `Deleted ${cleared.removed} kernels, ${bytes(cleared.bytes)}, from ${cleared.directory}\n`,
  );
  if (tunings) io.stdout.write(`Deleted ${plural(cleared.removedTunings, "tuning")}\n`);
}
