import { Command, CommanderError } from "commander";
import { VERSION } from "../runtime/version.ts";
import { addBenchCommand } from "./bench.ts";
import { addChatCommand } from "./chat.ts";
import { addCompareCommand } from "./compare.ts";
import {
  type Context,
  EXIT_DONE,
  EXIT_FAILED,
  EXIT_INTERRUPTED,
  EXIT_USAGE,
  InterruptedError,
} from "./context.ts";
import { addConvertCommand } from "./convert.ts";
import { addDetokenizeCommand } from "./detokenize.ts";
import { addDoctorCommand } from "./doctor.ts";
import { addEmbedCommand } from "./embed.ts";
import type { Engine } from "./engine.ts";
import { paint } from "./format.ts";
import { addGenerateCommand } from "./generate.ts";
import { addInspectCommand } from "./inspect.ts";
import { BrokenPipeError, type Io } from "./io.ts";
import { addKernelsCommand } from "./kernels.ts";
import { addLogitsCommand } from "./logits.ts";
import { addListCommand } from "./list.ts";
import { permissionMessage } from "./permissions.ts";
import { addPerplexityCommand } from "./perplexity.ts";
import { addPullCommand } from "./pull.ts";
import { addRemoveCommand } from "./rm.ts";
import { addServeCommand } from "./serve.ts";
import { addTokenizeCommand } from "./tokenize.ts";
import { addTuneCommand } from "./tune.ts";

const ADD_COMMANDS = [
  addGenerateCommand,
  addChatCommand,
  addServeCommand,
  addLogitsCommand,
  addEmbedCommand,
  addTokenizeCommand,
  addDetokenizeCommand,
  addPerplexityCommand,
  addCompareCommand,
  addBenchCommand,
  addTuneCommand,
  addKernelsCommand,
  addDoctorCommand,
  addInspectCommand,
  addPullCommand,
  addListCommand,
  addRemoveCommand,
  addConvertCommand,
];

/** Runs the command line and returns the process's exit code. Never throws. */
export async function main(args: readonly string[], io: Io, engine: Engine): Promise<number> {
  const context: Context = { io, engine, exitCode: EXIT_DONE };
  try {
    await createProgram(context).parseAsync(args, { from: "user" });
    return context.exitCode;
  } catch (error) {
    return fail(io, error);
  }
}

function createProgram(context: Context): Command {
  const program = new Command("trilith")
    .description("Runs ternary (1.58-bit) language models on this CPU")
    .version(VERSION)
    .addHelpText("after", PROGRAM_HELP);
  const { io } = context;
  // Also before subcommands are made: they inherit it.
  program.exitOverride().showSuggestionAfterError().configureOutput({
    writeOut: (text) => io.stdout.write(text),
    writeErr: (text) => io.stderr.write(text),
    // `fail` prints the error, in one line.
    outputError: () => {},
    // Else commander would read environment variables for which Deno may lack the permission.
    getOutHelpWidth: () => 100,
    getErrHelpWidth: () => 100,
    getOutHasColors: () => io.stdout.hasColour,
    getErrHasColors: () => io.stderr.hasColour,
  });
  // A flag after a command is that command's, also where the one above it has the same.
  program.enablePositionalOptions();
  for (const add of ADD_COMMANDS) add(program, context);
  return program;
}

const PROGRAM_HELP = `
Examples:
  trilith generate "Once upon a time"
  trilith pull microsoft/bitnet-b1.58-2B-4T
  trilith chat --model microsoft/bitnet-b1.58-2B-4T
  trilith serve --port 8080
  trilith doctor

trilith <command> --help has each command's flags and examples.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C (143 by SIGTERM).
TRILITH_DEBUG=1 shows where an error came from.
`;

/** Tells why a command ended, in one line, and returns its exit code. */
function fail(io: Io, error: unknown): number {
  if (error instanceof BrokenPipeError) return EXIT_DONE;
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT_DONE;
  // Help that was printed because the command was missing needs no further word.
  if (error instanceof CommanderError && error.code === "commander.help") return EXIT_USAGE;
  const isInterrupted = error instanceof InterruptedError;
  const label = isInterrupted ? "" : `${paint(io.stderr, "red", "error:")} `;
  io.stderr.write(`${label}${lineOf(error)}\n`);
  if (io.environment("TRILITH_DEBUG") !== null) io.stderr.write(`${stackOf(error)}\n`);
  return isInterrupted ? EXIT_INTERRUPTED : isUsage(error) ? EXIT_USAGE : EXIT_FAILED;
}

function isUsage(error: unknown): boolean {
  // By name, as layers below have such classes of their own.
  return error instanceof CommanderError || (error as { name?: unknown })?.name === "UsageError";
}

function lineOf(error: unknown): string {
  const message = permissionMessage(error) ??
    (error instanceof Error ? error.message || error.name : String(error));
  const line = message.replace(/^error: /, "").replace(/\s*\n\s*/g, " ").trim();
  return line.charAt(0).toUpperCase() + line.slice(1);
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\nCaused by: ${stackOf(error.cause)}`;
  return `${error.stack}${cause}`;
}
