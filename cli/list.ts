import type { Command } from "commander";
import type { RemoteModel } from "../runtime/hub/remote_models.ts";
import type { LocalModel } from "../runtime/hub/local_models.ts";
import type { Context } from "./context.ts";
import { addJsonFlag } from "./flags.ts";
import { bytes, grouped, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { checkHubCachePermission } from "./permissions.ts";

interface ListFlags {
  remote?: boolean;
  json?: boolean;
}

export function addListCommand(program: Command, context: Context): void {
  const command = program.command("list").alias("ls")
    .description("models in the hub's cache, or with --remote ternary models that can be pulled")
    .option("--remote", "a short list of published ternary models; asks no network");
  addJsonFlag(command)
    .addHelpText("after", LIST_HELP)
    .action((flags: ListFlags) => list(flags, context));
}

const LIST_HELP = `
Names of both lists can be given to --model and to pull.
--json prints [{"name", "repo", "commit", "revisions", "path", "format", "bytes", "runs", "note"}];
with --remote [{"name", "repo", "file", "revision", "licence", "downloadBytes", "memoryBytes",
"contextSize", "note"}], null where it is not known.

Examples:
  trilith list
  trilith list --remote
`;

async function list({ remote, json }: ListFlags, { io, engine }: Context): Promise<void> {
  if (remote) {
    const models = await engine.remoteModels();
    if (json) printJson(io.stdout, models);
    else io.stdout.write(remoteTable(models, io.stdout));
    return;
  }
  checkHubCachePermission();
  const models = await engine.listModels();
  if (json) return printJson(io.stdout, models);
  if (models.length > 0) io.stdout.write(localTable(models, io.stdout));
  else {io.stderr.write(
      "No models are in the hub's cache yet: `list --remote` shows some to pull\n",
    );}
}

function localTable(models: readonly LocalModel[], stdout: Output): string {
  const rows = models.map(({ name, commit, format, bytes: size, runs, note }) => [
    printable(name),
    commit.slice(0, 8),
    format ?? "",
    bytes(size),
    runs ? "yes" : "no",
    printable(note),
  ]);
  return table(stdout, ["name", "commit", "format", "size", "runs", "note"], rows);
}

function remoteTable(models: readonly RemoteModel[], stdout: Output): string {
  const rows = models.map((model) => [
    model.name,
    model.repo,
    model.licence,
    model.downloadBytes === null ? "?" : bytes(model.downloadBytes),
    model.memoryBytes === null ? "?" : bytes(model.memoryBytes),
    model.contextSize === null ? "?" : grouped(model.contextSize),
    model.note ?? "",
  ]);
  const headings = ["name", "on the hub", "licence", "download", "memory", "context", "note"];
  return `${table(stdout, headings, rows)}\n${REMOTE_NOTE}`;
}

const REMOTE_NOTE =
  `Download is the weights alone. Memory is the packed weights and up to 4,096 tokens of keys and values.
? is what could not be verified: \`pull NAME --dry-run\` asks the hub. The licences are their authors'.
`;
