import { type Command, Option } from "commander";
import { ISAS } from "../codegen/isa.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { BENCH_SHAPES } from "./bench.ts";
import { type Context, interruptible } from "./context.ts";
import { addJsonFlag, addQuietFlag, asUsageError } from "./flags.ts";
import { bytes, printJson, table } from "./format.ts";
import { checkCachePermissions, checkCompilerPermission, checkPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";

interface ShowFlags {
  model?: string;
  shape?: string;
  isa?: string;
  asm?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function addKernelsCommand(program: Command, context: Context): void {
  const kernels = program.command("kernels")
    .description("the generated kernels: list the compiled ones, show their Zig, clear them")
    .addHelpText("after", KERNELS_HELP);
  addJsonFlag(kernels.command("list").description("compiled kernels in the cache"))
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
  addJsonFlag(kernels.command("clear").description("delete the compiled kernels"))
    .action((flags: { json?: boolean }) => clear(flags, context));
}

const KERNELS_HELP = `
Examples:
  trilith kernels list
  trilith kernels show --isa avx2 > kernels.zig
  trilith kernels clear
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
  if (json) return printJson(io.stdout, cached);
  if (cached.length === 0) {
    io.stderr.write("No kernels are compiled yet: the first generate or bench compiles some\n");
    return;
  }
  const rows = cached.map(({ id, isa, libraryBytes, compiledAt }) => [
    id.slice(0, 16),
    isa ?? "",
    bytes(libraryBytes),
    compiledAt,
  ]);
  io.stdout.write(table(io.stdout, ["id", "isa", "size", "compiled"], rows));
}

async function showSources(
  { asm, json, quiet, ...options }: ShowFlags,
  { io, engine }: Context,
): Promise<void> {
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

async function clear({ json }: { json?: boolean }, { io, engine }: Context): Promise<void> {
  checkCachePermissions();
  const cleared = await engine.clearKernels();
  if (json) return printJson(io.stdout, cleared);
  io.stdout.write(
    `Deleted ${cleared.removed} kernels, ${bytes(cleared.bytes)}, from ${cleared.directory}\n`,
  );
}
