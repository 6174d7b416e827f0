import type { Command } from "commander";
import { UsageError } from "../runtime/errors.ts";
import type { Context } from "./context.ts";
import { addJsonFlag } from "./flags.ts";
import { bytes, printJson } from "./format.ts";
import type { Io } from "./io.ts";
import { checkCachePermissions, checkHubCachePermission } from "./permissions.ts";
import { plural } from "./statistics.ts";

interface RemoveFlags {
  yes?: boolean;
  json?: boolean;
}

export function addRemoveCommand(program: Command, context: Context): void {
  const command = program.command("rm")
    .description("delete a model from the hub's cache, and its packed weights")
    .argument("<model>", "ORG/NAME; with @REVISION or :FILE only that")
    .option("-y, --yes", "do not ask");
  addJsonFlag(command)
    .addHelpText("after", REMOVE_HELP)
    .action((model: string, flags: RemoveFlags) => remove(model, flags, context));
}

const REMOVE_HELP = `
Files that another revision of the model uses stay. Python's tools use the same cache: what is
deleted here is gone for them too.

--json prints {"name", "repo", "commits", "files", "bytes", "packed": [{"path", "bytes"}]}, and
needs --yes.

Examples:
  trilith rm microsoft/bitnet-b1.58-2B-4T
  trilith rm microsoft/bitnet-b1.58-2B-4T@04c3b9ad --yes
`;

async function remove(
  model: string,
  { yes, json }: RemoveFlags,
  { io, engine }: Context,
): Promise<void> {
  checkCachePermissions();
  checkHubCachePermission("write");
  const removal = await engine.modelRemoval(model);
  const { name, repo, commits, files, bytes: size, packed } = removal;
  const packedBytes = packed.reduce((sum, file) => sum + file.bytes, 0);
  const what = `${name} (${plural(files.length, "file")}, ${bytes(size)}` +
    `${packed.length > 0 ? `, and ${bytes(packedBytes)} packed` : ""})`;
  if (!yes && !(json ? false : await isAgreed(io, what))) throw refusal(io, what);
  await engine.removeModels(removal);
  if (json) printJson(io.stdout, { name, repo, commits, files, bytes: size, packed });
  else io.stdout.write(`Deleted ${what}\n`);
}

/** Asks a person; nobody can answer down a pipe. */
async function isAgreed(io: Io, what: string): Promise<boolean> {
  if (!io.stdin.isTerminal) return false;
  const lines = io.openLines(null);
  try {
    const answer = await lines.read(`Delete ${what}? [y/N] `);
    return typeof answer === "string" && /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}

function refusal(io: Io, what: string): Error {
  return io.stdin.isTerminal
    ? new Error("Nothing was deleted")
    : new UsageError(`Cannot delete ${what} without being sure: add --yes`);
}
