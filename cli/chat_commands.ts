import { readFile, writeFile } from "node:fs/promises";
import { reasonOf } from "../runtime/errors.ts";
import type { ChatSession } from "./chat_session.ts";
import { checkPermissions } from "./permissions.ts";
import { plural, statisticsOf } from "./statistics.ts";

/** What the chat loop is to do after a command. */
export type AfterCommand = { say: string } | { ask: string } | "exit";

interface ChatCommand {
  help: string;
  run(session: ChatSession, argument: string): AfterCommand | Promise<AfterCommand>;
}

/** The slash commands: a row adds the command and its line of help. */
export const CHAT_COMMANDS: Readonly<Record<string, ChatCommand>> = {
  help: { help: "this list", run: () => ({ say: helpText() }) },
  system: { help: "[TEXT] set the system message, or show it", run: system },
  reset: {
    help: "forget the conversation, not the system message",
    run: (session) => {
      session.reset();
      return { say: "The conversation starts anew" };
    },
  },
  undo: {
    help: "take back the last question and answer",
    run: (session) => ({
      say: session.undo() === null ? "There is nothing to take back" : "Took back the last turn",
    }),
  },
  regen: {
    help: "answer the last question again",
    run: (session) => {
      const question = session.undo();
      return question === null
        ? { say: "There is no question to answer again" }
        : { ask: question };
    },
  },
  save: { help: "FILE write the conversation", run: save },
  load: { help: "FILE go on from a saved conversation", run: load },
  stats: { help: "speed of the last answer, and how full the context is", run: stats },
  exit: { help: "leave; so do Ctrl-D and Ctrl-C twice", run: () => "exit" },
};

/** Names that other programs' users type. */
const ALIASES: Readonly<Record<string, string>> = {
  "?": "help",
  bye: "exit",
  quit: "exit",
  clear: "reset",
};

/** Runs a line that starts with a slash. */
export async function runChatCommand(session: ChatSession, line: string): Promise<AfterCommand> {
  const [, name, argument] = /^\/(\S*)\s*(.*)$/s.exec(line)!;
  const key = ALIASES[name] ?? name;
  if (!Object.hasOwn(CHAT_COMMANDS, key)) {
    return { say: `There is no /${name}: /help lists the commands` };
  }
  return await CHAT_COMMANDS[key].run(session, argument.trim());
}

function helpText(): string {
  const lines = Object.entries(CHAT_COMMANDS).map(([name, { help }]) =>
    `/${name.padEnd(7)} ${help}`
  );
  return [...lines, 'End a line with \\ to go on, or put """ around several lines'].join("\n");
}

function system(session: ChatSession, text: string): AfterCommand {
  if (text === "") return { say: session.system ?? "There is no system message" };
  session.system = text;
  return { say: "The system message is set" };
}

async function save(session: ChatSession, file: string): Promise<AfterCommand> {
  if (file === "") return { say: "Cannot save: give a file, /save chat.json" };
  const saved = { model: session.model.name, messages: session.messages };
  try {
    checkPermissions({ name: "write", path: file });
    await writeFile(file, `${JSON.stringify(saved, null, 2)}\n`);
  } catch (error) {
    return { say: `Cannot save to ${file}: ${reasonOf(error)}` };
  }
  return { say: `Saved ${plural(saved.messages.length, "message")} to ${file}` };
}

async function load(session: ChatSession, file: string): Promise<AfterCommand> {
  if (file === "") return { say: "Cannot load: give a file, /load chat.json" };
  try {
    checkPermissions({ name: "read", path: file });
    session.load(JSON.parse(await readFile(file, "utf8"))?.messages);
  } catch (error) {
    return { say: `Cannot load ${file}: ${reasonOf(error)}` };
  }
  return { say: `Loaded ${plural(session.messages.length, "message")} from ${file}` };
}

function stats({ results, model }: ChatSession): AfterCommand {
  const last = results.at(-1);
  if (last === undefined) return { say: "There was no answer yet" };
  const used = last.promptTokens + last.completionTokens;
  return { say: `${statisticsOf(last, model)}\ncontext ${used} of ${model.contextSize} tokens` };
}
