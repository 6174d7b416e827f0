import { type Command, Option } from "commander";
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from "../api/log.ts";
import type { Place } from "../api/place.ts";
import { UsageError } from "../runtime/errors.ts";
import type { Context } from "./context.ts";
import { listOf, readEnvironmentFlags, variablesOf } from "./environment_flags.ts";
import { addModelFlags, headOption, type ModelFlags, wholeNumber } from "./flags.ts";
import { readTextFile } from "./generate.ts";
import type { Io } from "./io.ts";
import { modelPath } from "./model_path.ts";
import { checkListenPermission, checkModelPermissions } from "./permissions.ts";

export interface ServeFlags extends ModelFlags {
  host: string;
  port: number;
  socket?: string;
  alias?: string;
  apiKey?: string[];
  apiKeyFile?: string;
  allowedHost?: string[];
  corsOrigin?: string[];
  maxBody: number;
  bodySeconds: number;
  rateLimit?: number;
  maxSequences?: number;
  maxWaiting: number;
  batchTokens?: number;
  cacheTokens?: number;
  drainSeconds: number;
  logFormat: LogFormat;
  logLevel?: LogLevel;
  logPrompts?: boolean;
  /** False with --no-web. */
  web: boolean;
  timeout?: number;
  keepAliveSeconds: number;
}

const REPEATABLE = ["apiKey", "allowedHost", "corsOrigin"];

export function addServeCommand(program: Command, context: Context): void {
  const command = program.command("serve")
    .description("serve the model over HTTP: OpenAI's, Anthropic's and Ollama's APIs, and a chat");
  addModelFlags(command).addOption(headOption());
  addPlaceFlags(command);
  addAccessFlags(command);
  addLimitFlags(command);
  addLogFlags(command);
  command.addHelpText("after", `\nEnvironment:${wrapped(variablesOf(command))}\n${SERVE_HELP}`)
    .action(() => serve(command, context));
}

function addPlaceFlags(command: Command): void {
  command
    .option("--host <address>", "address to listen on; 0.0.0.0: every one", "127.0.0.1")
    .option(
      "--port <n>",
      "port to listen on; 0: any that is free",
      wholeNumber("--port", 0, 65_535),
      8080,
    )
    .option("--socket <path>", "listen on a Unix socket in place of a port; only you may connect")
    .option("--alias <name>", "what clients call the model; default: its folder's name")
    .option("--no-web", "without the chat page");
}

function addAccessFlags(command: Command): void {
  command
    .option("--api-key <key>", "ask clients for this key; repeatable", nonEmpty("--api-key"))
    .option("--api-key-file <file>", "ask clients for a key of this file, one a line")
    .option(
      "--allowed-host <name>",
      "answer for this name in the Host header too; .name: all below it; *: any; repeatable",
      nonEmpty("--allowed-host"),
    )
    .option(
      "--cors-origin <origin>",
      "let scripts of this origin in; localhost: any port of this machine; *: all; repeatable",
      nonEmpty("--cors-origin"),
    );
}

function addLimitFlags(command: Command): void {
  command
    .option("--max-body <bytes>", "longest request", wholeNumber("--max-body", 1), 2 ** 20)
    .option(
      "--body-seconds <n>",
      "a request that has not arrived after so long is refused",
      wholeNumber("--body-seconds", 1, 1_000_000),
      30,
    )
    .option(
      "--rate-limit <n>",
      "requests a minute of one key, or of one address without keys; default: no limit",
      wholeNumber("--rate-limit", 1),
    )
    .option(
      "--max-sequences <n>",
      "most sequences that run at once; default: 64",
      wholeNumber("--max-sequences", 1, 65_536),
    )
    .option(
      "--max-waiting <n>",
      "most sequences that wait; one more is answered with 503",
      wholeNumber("--max-waiting", 0),
      256,
    )
    .option(
      "--cache-tokens <n>",
      "tokens that the cache of keys and values holds; default: what 2 GiB hold, or all sequences need",
      wholeNumber("--cache-tokens", 1),
    )
    .option(
      "--batch-tokens <n>",
      "most tokens of one native call: fewer keep streams even, more are quicker for long prompts",
      wholeNumber("--batch-tokens", 1),
    )
    .option(
      "--timeout <seconds>",
      "a request's longest time; default: no limit",
      wholeNumber("--timeout", 1, 1_000_000),
    )
    .option(
      "--keep-alive-seconds <n>",
      "send a comment into streams that are silent so long",
      wholeNumber("--keep-alive-seconds", 1, 1_000_000),
      15,
    )
    .option(
      "--drain-seconds <n>",
      "how long running requests may go on after SIGTERM or Ctrl-C",
      wholeNumber("--drain-seconds", 0, 1_000_000),
      30,
    );
}

function addLogFlags(command: Command): void {
  const level = "least important events to log; default: info, with --quiet error";
  command
    .addOption(
      new Option("--log-format <format>", "on standard error").choices(LOG_FORMATS).default("text"),
    )
    .addOption(new Option("--log-level <level>", level).choices(LOG_LEVELS))
    .option("--log-prompts", "log requests with their prompts: for debugging, never otherwise");
}

const SERVE_HELP = `
A flag beats its variable. Lists in variables have commas between their parts, switches are 1 or 0.
TRILITH_API_KEYS is a list of keys as well. Keys on a command line can be seen by other users of the
machine: a file or a variable is better.

SIGTERM or Ctrl-C: /health says "draining", new requests get 503, running ones have --drain-seconds
to end; those that do not are told so. A second one ends the server at once. Exit codes: 0 all
requests were answered, 130 or 143 some were broken off, 1 the model could not be loaded or the
place not be listened on.

Examples:
  trilith serve
  trilith serve --model ./bitnet-b1.58-2B-4T --host 0.0.0.0 --api-key-file keys.txt
  trilith serve --socket /run/trilith/trilith.sock
  trilith serve --port 0 --json
`;

/** Words in lines of the help's width. */
function wrapped(words: readonly string[]): string {
  const lines = [""];
  for (const word of words) {
    if (lines.at(-1)!.length + word.length > 80) lines.push("");
    lines[lines.length - 1] += ` ${word}`;
  }
  return lines.join("\n ");
}

/** Commander's parser of a repeatable flag. */
function nonEmpty(flag: string): (text: string, previous?: string[]) => string[] {
  return (text, previous = []) => {
    if (text.trim() === "") throw new UsageError(`Cannot use an empty ${flag}: give a value`);
    return [...previous, text.trim()];
  };
}

async function serve(command: Command, context: Context): Promise<void> {
  readEnvironmentFlags(command, context.io, REPEATABLE);
  const flags = command.opts<ServeFlags>();
  const place = placeOf(command, flags);
  const apiKeys = await keysOf(flags, context.io);
  const modelFile = await modelPath(context, flags);
  checkModelPermissions(modelFile, flags.kernels);
  checkListenPermission(place);
  // The other commands need not wait for its packages.
  const { runServer } = await import("./serve_run.ts");
  context.exitCode = await runServer({ flags, modelFile, place, apiKeys }, context);
}

/** @throws {UsageError} If a port and a socket are asked for. */
function placeOf(command: Command, { socket, host, port }: ServeFlags): Place {
  if (socket === undefined) return { host, port };
  const other = ["port", "host"].find((name) => command.getOptionValueSource(name) === "cli");
  if (other === undefined) return { socket };
  throw new UsageError(`Cannot use --socket and --${other} at once: give one of them`);
}

/** @throws {UsageError} If the file of keys has none: the server would be open to everybody. */
async function keysOf({ apiKey = [], apiKeyFile }: ServeFlags, io: Io): Promise<string[]> {
  const more = listOf(io.environment("TRILITH_API_KEYS") ?? "");
  if (apiKeyFile === undefined) return [...apiKey, ...more];
  const text = await readTextFile(apiKeyFile, "--api-key-file");
  const lines = text.split("\n").map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0) {
    throw new UsageError(
      `Cannot use --api-key-file ${apiKeyFile}: it has no key, write one a line`,
    );
  }
  return [...apiKey, ...more, ...lines];
}
