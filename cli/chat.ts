import type { Command } from "commander";
import path from "node:path";
import { reasonOf } from "../runtime/errors.ts";
import { samplerOptionsOf } from "../runtime/sampler_advice.ts";
import type { Model } from "../runtime/types.ts";
import { runChatCommand } from "./chat_commands.ts";
import { ChatSession } from "./chat_session.ts";
import { type Context, EXIT_INTERRUPTED, interruptible } from "./context.ts";
import {
  addModelFlags,
  addSamplingFlags,
  asUsageError,
  type ModelFlags,
  SAMPLING_NOTE,
  type SamplingFlags,
} from "./flags.ts";
import { paint, printable, printJson } from "./format.ts";
import { BrokenPipeError, type Io } from "./io.ts";
import { END, INTERRUPT, type LineReader } from "./line_reader.ts";
import { loadModel } from "./loading.ts";
import { statisticsOf } from "./statistics.ts";

interface ChatFlags extends ModelFlags, SamplingFlags {
  system?: string;
}

export function addChatCommand(program: Command, context: Context): void {
  const command = program.command("chat")
    .description("talk with a model in the terminal")
    .option("-s, --system <text>", "the system message");
  addSamplingFlags(addModelFlags(command))
    .addHelpText("after", `${SAMPLING_NOTE}${CHAT_HELP}`)
    .action((flags: ChatFlags) => chat(flags, context));
}

const CHAT_HELP = `
In the chat /help lists the commands. Ctrl-C stops the answer; at the prompt, twice, it leaves.
From a pipe each line is a question. --json prints {"model", "messages", "turns"} at the end.

Examples:
  trilith chat --model ./bitnet-b1.58-2B-4T
  trilith chat --model ./bitnet-b1.58-2B-4T --system "Answer briefly" --temperature 0.7
  echo "What is a trit?" | trilith chat --model ./bitnet-b1.58-2B-4T
`;

async function chat(flags: ChatFlags, context: Context): Promise<void> {
  await using model = await interruptible(
    context.io,
    (signal, interrupts) => loadModel(context, { ...flags, task: "generate" }, signal, interrupts),
  );
  checkTemplate(model);
  const { generationDefaults } = model;
  const options = {
    ...samplerOptionsOf(flags, generationDefaults),
    maxTokens: flags.maxTokens ?? generationDefaults.maxNewTokens,
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
    speculate: flags.speculate,
  };
  const session = new ChatSession(model, options, flags.system);
  const lines = context.io.openLines(await historyFile(context.io));
  try {
    await new Chat(session, lines, context, flags).run();
  } finally {
    lines.close();
  }
  if (!flags.json) return;
  printJson(context.io.stdout, {
    model: model.name,
    messages: session.messages,
    turns: session.results,
  });
}

/** @throws {Error} If the model can't chat: better now than after the first question. */
function checkTemplate(model: Model): void {
  try {
    model.applyChatTemplate([{ role: "user", content: "Hello" }], { addGenerationPrompt: true });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Error(
      `Cannot chat with ${model.name}, as it has no chat template that works: use \`generate\`` +
        `, or give a model made for chat with --model`,
      { cause: error },
    );
  }
}

/** Only for a person: what comes down a pipe is not history. */
async function historyFile(io: Io): Promise<string | null> {
  if (!io.stdin.isTerminal) return null;
  const { cacheDirectory } = await import("../kernels/cache.ts");
  try {
    return path.join(cacheDirectory("chat"), "history");
  } catch {
    return null;
  }
}

/** The loop: a line, a command or an answer. */
class Chat {
  #isLeaving = false;

  constructor(
    private readonly session: ChatSession,
    private readonly lines: LineReader,
    private readonly context: Context,
    private readonly flags: ChatFlags,
  ) {}

  async run(): Promise<void> {
    if (this.#isPerson) {
      this.#say(`${this.session.model.name}: type a message, or /help. Ctrl-C stops an answer.`);
    }
    while (true) {
      const turn = await this.#readTurn();
      if (turn === END) return this.#endLine();
      if (turn === INTERRUPT) {
        if (this.#isLeaving) return void (this.context.exitCode = EXIT_INTERRUPTED);
        this.#isLeaving = true;
        this.#say("\nPress Ctrl-C again to leave, or type /exit");
        continue;
      }
      this.#isLeaving = false;
      if (await this.#handle(turn) === "exit") return;
    }
  }

  /** After Ctrl-D the cursor still stands behind the prompt. */
  #endLine(): void {
    if (this.#isPerson) this.context.io.stderr.write("\n");
  }

  get #isPerson(): boolean {
    return this.context.io.stdin.isTerminal;
  }

  /** Remarks are not part of the answers, so they do not go to standard output. */
  #say(text: string): void {
    this.context.io.stderr.write(`${paint(this.context.io.stderr, "dim", text)}\n`);
  }

  /** One message: a line, lines that end with a backslash, or lines between triple quotes. */
  async #readTurn(): Promise<string | typeof INTERRUPT | typeof END> {
    const first = await this.lines.read(">>> ");
    if (typeof first !== "string") return first;
    const isQuoted = first.startsWith('"""');
    const parts = [isQuoted ? first.slice(3) : first];
    while (isQuoted ? !parts.at(-1)!.endsWith('"""') : parts.at(-1)!.endsWith("\\")) {
      const next = await this.lines.read("... ");
      if (next === INTERRUPT) return INTERRUPT;
      if (next === END) break;
      if (!isQuoted) parts.push(parts.pop()!.slice(0, -1));
      parts.push(next);
    }
    const text = parts.join("\n");
    return isQuoted ? text.replace(/"""$/, "") : text;
  }

  async #handle(turn: string): Promise<"exit" | void> {
    if (turn.trim() === "") return;
    if (!turn.startsWith("/")) return await this.#answer(turn);
    const after = await runChatCommand(this.session, turn);
    if (after === "exit") return "exit";
    if ("say" in after) this.#say(after.say);
    else await this.#answer(after.ask);
  }

  async #answer(question: string): Promise<void> {
    const { io } = this.context;
    try {
      const result = await interruptible(
        io,
        async (signal) => await this.session.ask(question, signal, (text) => this.#show(text)),
      );
      this.#show("\n");
      if (!this.flags.quiet) this.#say(statisticsOf(result, this.session.model));
    } catch (error) {
      this.#complain(error);
    }
  }

  #show(text: string): void {
    const { stdout } = this.context.io;
    if (!this.flags.json) stdout.write(stdout.isTerminal ? printable(text) : text);
  }

  /** A failed turn, such as one too long for the context, does not end a person's conversation. */
  #complain(error: unknown): void {
    if (error instanceof BrokenPipeError) throw error;
    if (!this.#isPerson) throw asUsageError(error);
    this.context.io.stderr.write(
      `${paint(this.context.io.stderr, "red", "error:")} ${reasonOf(error)}\n`,
    );
  }
}
