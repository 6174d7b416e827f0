import fs from "node:fs";
import process from "node:process";
import readline from "node:readline/promises";
import { type Input, readLineGroups } from "./io.ts";

/** Ctrl-C at the prompt. */
export const INTERRUPT = Symbol("interrupt");
/** Ctrl-D, or the end of piped input. */
export const END = Symbol("end");

/** Lines that a person types, or that come down a pipe. */
export interface LineReader {
  read(prompt: string): Promise<string | typeof INTERRUPT | typeof END>;
  close(): void;
}

/** Lines of a pipe; there is nobody to prompt. */
export function pipedLines(input: Input): LineReader {
  const groups = readLineGroups(input);
  let lines: string[] = [];
  return {
    async read() {
      while (lines.length === 0) {
        const { value, done } = await groups.next();
        if (done) return END;
        lines = value;
      }
      return lines.shift()!;
    },
    close() {},
  };
}

const HISTORY_LENGTH = 500;

/**
 * Lines with editing and history. There is an interface only while a line is typed: in between the
 * terminal is its usual self, so that Ctrl-C is a signal and what is typed ahead waits.
 *
 * @param historyFile Where lines are kept from one chat to the next, or null.
 */
export function terminalLines(historyFile: string | null): LineReader {
  // Newest first, as readline has it.
  let history = readHistory(historyFile);
  return {
    async read(prompt) {
      const line = await readTerminalLine(prompt, history);
      if (typeof line === "string" && line.trim() !== "" && line !== history[0]) {
        history = [line, ...history].slice(0, HISTORY_LENGTH);
      }
      return line;
    },
    close: () => writeHistory(historyFile, history),
  };
}

function readTerminalLine(
  prompt: string,
  history: readonly string[],
): Promise<string | typeof INTERRUPT | typeof END> {
  const terminal = readline.createInterface({
    input: process.stdin,
    // Standard output may be a file that wants the answers only.
    output: process.stdout.isTTY ? process.stdout : process.stderr,
    terminal: true,
    history: [...history],
    historySize: HISTORY_LENGTH,
  });
  return new Promise<string | typeof INTERRUPT | typeof END>((resolve, reject) => {
    terminal.on("SIGINT", () => resolve(INTERRUPT));
    terminal.on("close", () => resolve(END));
    terminal.question(prompt).then(resolve, reject);
  }).finally(() => terminal.close());
}

function readHistory(file: string | null): string[] {
  if (file === null) return [];
  try {
    return fs.readFileSync(file, "utf8").split("\n").filter((line) => line !== "").reverse();
  } catch {
    // There is none before the first chat; an unreadable one is no reason not to chat.
    return [];
  }
}

function writeHistory(file: string | null, history: readonly string[]): void {
  if (file === null) return;
  try {
    const text = [...history].reverse().map((line) => `${line}\n`).join("");
    fs.writeFileSync(file, text, { mode: 0o600 });
  } catch {
    // As above: history is a convenience.
  }
}
