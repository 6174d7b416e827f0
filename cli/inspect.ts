import type { Command } from "commander";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import type { MemoryOptions } from "../runtime/memory_needed.ts";
import type { Pooling } from "../runtime/pooling.ts";
import type { InspectReport } from "../runtime/reports.ts";
import type { EmbeddingPrompts } from "../runtime/types.ts";
import type { Context } from "./context.ts";
import { addJsonFlag, kvTypeOption, wholeNumber } from "./flags.ts";
import { bytes, digits, fields, grouped, printable, printJson, table } from "./format.ts";
import type { Output } from "./io.ts";
import { modelPath } from "./model_path.ts";
import { checkPermissions } from "./permissions.ts";

export function addInspectCommand(program: Command, context: Context): void {
  const command = program.command("inspect")
    .description(
      "a model's architecture, shapes, tensors, tokenizer and memory, without running it",
    )
    .argument("[model]", "folder, file, or a name of the hub's; default: the embedded story model");
  command
    .option("-c, --ctx <n>", "tokens that memory is to be told for", wholeNumber("--ctx", 1))
    .addOption(kvTypeOption())
    .option("-t, --threads <n>", "native threads", wholeNumber("--threads", 1, 1024));
  addJsonFlag(command)
    .addHelpText("after", INSPECT_HELP)
    .action((model: string | undefined, flags: InspectFlags) => inspect(model, flags, context));
}

interface InspectFlags extends Pick<MemoryOptions, "kvType" | "threads"> {
  ctx?: number;
  json?: boolean;
}

const INSPECT_HELP = `
Memory needed is what a process has resident once its context is full, with this machine's kernels.
Weights are mapped from a file: other processes share them, and the system can drop them. Of a large
head only the rows that a token comes close to are read: until most have been, less is resident.

Examples:
  trilith inspect
  trilith inspect ./bitnet-b1.58-2B-4T --json
  trilith inspect ./bitnet-b1.58-2B-4T --ctx 4096 --kv-type int8
`;

async function inspect(
  model: string | undefined,
  { json, ctx: contextSize, kvType, threads }: InspectFlags,
  context: Context,
): Promise<void> {
  const { io: { stdout }, engine } = context;
  const path = await modelPath(context, { model });
  checkPermissions({ name: "read", path: path ?? embeddedModelFolder() });
  const report = await engine.inspectModel(path, { contextSize, kvType, threads });
  if (json) printJson(stdout, report);
  else printReport(report, stdout);
}

const STATES: Readonly<Record<Pooling, string>> = {
  mean: "the mean of all tokens",
  cls: "the first token's",
  last: "the last token's",
  max: "of each number the largest of all tokens",
  weightedmean: "the mean of all tokens, later ones weighing more",
  mean_sqrt_len_tokens: "the sum of all tokens over the root of their number",
};

function usedFor({ embedding, chatTemplate }: InspectReport): [string, string] {
  if (embedding === null) {
    return ["chat template", chatTemplate === null ? "none: use generate" : "yes: chat works"];
  }
  const length = embedding.normalize ? "of length 1" : "of any length";
  const { pooling, prompts } = embedding;
  return ["for", `embed: vectors ${length}, ${STATES[pooling]}${promptsText(prompts)}`];
}

function promptsText({ texts, defaultName }: EmbeddingPrompts): string {
  const names = Object.keys(texts);
  if (names.length === 0) return "";
  const otherwise = defaultName === null ? "none" : defaultName;
  return `; prompts ${names.map(printable).join(", ")} (default: ${printable(otherwise)})`;
}

function memoryText(memory: InspectReport["memory"]): string {
  const { contextSize, kvType, weightBytes, unreadBytes, kvBytes, bufferBytes, runtimeBytes } =
    memory;
  const unread = unreadBytes < 1e6 ? "" : ` less ${bytes(unreadBytes)} of unread embeddings`;
  return `${bytes(memory.totalBytes)}: weights ${bytes(weightBytes)}${unread}, KV cache ` +
    `${bytes(kvBytes)} (${grouped(contextSize)} tokens in ${kvType}), buffers ` +
    `${bytes(bufferBytes)}, Deno and tokenizer ${bytes(runtimeBytes)}`;
}

/** A part of a model: a number, a list, or fields of its own. */
function shownShape(value: unknown): string {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.map(shownShape).join(" ") || "none";
  if (typeof value !== "object") return String(value);
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return fields.map(([name, field]) => `${name} ${shownShape(field)}`).join(", ");
}

function printReport(report: InspectReport, stdout: Output): void {
  const { tokenizer, memory } = report;
  const kvTypes = Object.entries(memory.kvBytesPerTokenByType)
    .map(([kvType, size]) => `${bytes(size)} in ${kvType}`).join(", ");
  stdout.write(fields(stdout, [
    ["name", printable(report.name)],
    ["path", report.path],
    ["architecture", printable(report.architecture)],
    ["parameters", grouped(report.parameters)],
    ["bits a weight", digits(report.bitsPerWeight)],
    ["context", `${grouped(report.contextSize)} tokens`],
    ["tokenizer", `${tokenizer.type}, ${grouped(tokenizer.vocabSize)} tokens`],
    ["starts with", printable(tokenizer.bosToken ?? "nothing")],
    ["ends with", printable(tokenizer.eosTokens.join(", ") || "nothing")],
    usedFor(report),
    ["KV cache a token", kvTypes],
    ["memory needed", memoryText(memory)],
  ]));
  const shapes = Object.entries(report.shapes).map(([name, value]) =>
    [name, shownShape(value)] as const
  );
  stdout.write(`\n${fields(stdout, shapes)}`);
  const rows = report.tensorTypes.map(({ type, tensors, weights, bytes: size }) => [
    type,
    tensors,
    grouped(weights),
    bytes(size),
  ]);
  stdout.write(`\n${table(stdout, ["type", "tensors", "weights", "size"], rows)}`);
}
