import { type Command, Option } from "commander";
import { expOfNegative } from "../runtime/sampler.ts";
import type { Model, PositionLogits } from "../runtime/types.ts";
import { type Context, interruptible, isAbort } from "./context.ts";
import { addModelFlags, asUsageError, type ModelFlags, tokenIds, wholeNumber } from "./flags.ts";
import { table } from "./format.ts";
import type { Output } from "./io.ts";
import { loadModel } from "./loading.ts";

interface LogitsFlags extends ModelFlags {
  ids: number[];
  positions: "all" | "last";
  chunk?: number;
}

export function addLogitsCommand(program: Command, context: Context): void {
  const command = program.command("logits")
    .description("the float32 logits after token ids")
    .requiredOption("--ids <ids>", "token ids: 1,2,3", tokenIds("--ids"))
    .addOption(
      new Option("--positions <which>", "logits after every token, or after the last one")
        .choices(["all", "last"]).default("all"),
    )
    .option("--chunk <n>", "most tokens of one native call", wholeNumber("--chunk", 1));
  addModelFlags(command)
    .addHelpText("after", LOGITS_HELP)
    .action((flags: LogitsFlags) => logits(flags, context));
}

const LOGITS_HELP = `
--json prints {"positions": [{"position": 0, "logits": [...]}, ...]}. The numbers read back as the
same float32. Without it: the ten best tokens of each position.

Examples:
  trilith logits --ids 1,2,3
  trilith logits --ids 1,2,3 --positions last --kernels reference --json
`;

async function logits(flags: LogitsFlags, context: Context): Promise<void> {
  await interruptible(context.io, async (signal, interrupts) => {
    await using model = await loadModel(
      context,
      { ...flags, maxBatchTokens: flags.chunk },
      signal,
      interrupts,
    );
    const results = model.logits(flags.ids, { positions: flags.positions, signal });
    const print = flags.json ? printJsonStream : printTopTokens;
    try {
      await print(results, context.io.stdout, model);
    } catch (error) {
      throw asUsageError(error);
    }
  });
}

/** One document, written position by position: all positions together may not fit in a string. */
async function printJsonStream(results: AsyncIterable<PositionLogits>, stdout: Output) {
  // Not before there is a result: a call that is refused must leave nothing.
  const opening = '{"positions":[';
  let isOpen = false;
  try {
    for await (const { position, logits } of results) {
      const before = isOpen ? "," : opening;
      stdout.write(`${before}{"position":${position},"logits":[${numbersOf(logits)}]}`);
      isOpen = true;
    }
  } catch (error) {
    // Ctrl-C leaves a whole document with the positions that there were.
    if (isOpen && isAbort(error)) stdout.write("]}\n");
    throw error;
  }
  stdout.write("]}\n");
}

/** A float32 as a double's shortest decimal reads back as itself; JSON has a -0 but no NaN. */
function numbersOf(logits: Float32Array): string {
  const texts = new Array<string>(logits.length);
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id];
    if (!Number.isFinite(value)) throw new Error(`Cannot print logits as token ${id} has ${value}`);
    texts[id] = Object.is(value, -0) ? "-0" : String(value);
  }
  return texts.join(",");
}

const SHOWN_TOKENS = 10;

async function printTopTokens(
  results: AsyncIterable<PositionLogits>,
  stdout: Output,
  { tokenizer }: Model,
) {
  for await (const { position, logits } of results) {
    const ids = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    const highest = logits[ids[0]];
    const total = logits.reduce((sum, logit) => sum + expOfNegative(logit - highest), 0);
    const rows = ids.slice(0, SHOWN_TOKENS).map((id) => [
      id,
      JSON.stringify(tokenizer.tokenText(id) ?? ""),
      logits[id].toFixed(4),
      `${(100 * expOfNegative(logits[id] - highest) / total).toFixed(2)} %`,
    ]);
    stdout.write(`After position ${position}\n`);
    stdout.write(`${table(stdout, ["id", "token", "logit", "probability"], rows)}\n`);
  }
}
