import fs from "node:fs";
import process from "node:process";
import tty from "node:tty";
import { promisify } from "node:util";
import { environmentVariable } from "../kernels/permissions.ts";
import { type LineReader, pipedLines, terminalLines } from "./line_reader.ts";

/** Where a command writes: a file descriptor, or a string in tests. */
export interface Output {
  /** @throws {BrokenPipeError} If nobody reads standard output any more. */
  write(text: string): void;
  /** Writes beside other work, for those who can't wait for a slow reader. */
  writeSoon(text: string): Promise<void>;
  readonly isTerminal: boolean;
  /** Characters of a line. */
  readonly columns: number;
  readonly hasColour: boolean;
}

export interface Input {
  readonly isTerminal: boolean;
  /** Whole characters, as they come. */
  chunks(): AsyncIterable<string>;
}

/** All of the outside world that commands touch except files, so that tests can stand in for it. */
export interface Io {
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Lines of standard input, with editing and history if a person types them. */
  openLines(historyFile: string | null): LineReader;
  environment(name: string): string | null;
  /** Calls `listener` for each Ctrl-C, which then no longer ends the process; returns its removal. */
  onInterrupt(listener: () => void): () => void;
  /** The same for SIGTERM, with which service managers end a process. */
  onTerminate(listener: () => void): () => void;
  exit(code: number): void;
}

/** Whoever read our output has gone, as `head` does: the command ends quietly. */
export class BrokenPipeError extends Error {
  override readonly name = "BrokenPipeError";
}

const STDOUT = 1;
const STDERR = 2;

/** Io of this process. */
export function processIo(): Io {
  const stdin = { isTerminal: tty.isatty(0), chunks: stdinChunks };
  return {
    stdin,
    stdout: fileOutput(STDOUT),
    stderr: fileOutput(STDERR),
    openLines: (history) => stdin.isTerminal ? terminalLines(history) : pipedLines(stdin),
    environment: environmentVariable,
    onInterrupt(listener) {
      process.on("SIGINT", listener);
      return () => process.off("SIGINT", listener);
    },
    onTerminate(listener) {
      // Windows has no such signal.
      if (process.platform === "win32") return () => {};
      process.on("SIGTERM", listener);
      return () => process.off("SIGTERM", listener);
    },
    exit: (code) => process.exit(code),
  };
}

async function* stdinChunks(): AsyncGenerator<string> {
  process.stdin.setEncoding("utf8");
  for await (const chunk of process.stdin) yield chunk as string;
}

function fileOutput(descriptor: typeof STDOUT | typeof STDERR): Output {
  const isTerminal = tty.isatty(descriptor);
  const dumb = environmentVariable("TERM") === "dumb";
  return {
    isTerminal,
    // A terminal may be resized while we run.
    get columns() {
      return (descriptor === STDOUT ? process.stdout.columns : process.stderr.columns) || 80;
    },
    hasColour: isTerminal && !dumb && environmentVariable("NO_COLOR") === null,
    write: (text) => writeAll(descriptor, new TextEncoder().encode(text)),
    writeSoon: (text) => writeAllSoon(descriptor, new TextEncoder().encode(text)),
  };
}

/** Synchronous, so that what was written is out when the process ends, whatever ends it. */
function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    try {
      done += fs.writeSync(descriptor, bytes, done);
    } catch (error) {
      const { code, name } = error as { code?: string; name?: string };
      if (code === "EAGAIN" || name === "WouldBlock") pauseMs(1);
      // Diagnostics that nobody reads, or a log on a full disk, are no reason to stop.
      else if (descriptor === STDERR) return;
      else if (code === "EPIPE" || name === "BrokenPipe") {
        throw new BrokenPipeError("Standard output was closed");
      } else throw error;
    }
  }
}

const writeAsync = promisify(fs.write);

async function writeAllSoon(descriptor: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    try {
      done += (await writeAsync(descriptor, bytes, done)).bytesWritten;
    } catch (error) {
      const { code, name } = error as { code?: string; name?: string };
      if (code !== "EAGAIN" && name !== "WouldBlock") throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

function pauseMs(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** All of an input. */
export async function readAll(input: Input): Promise<string> {
  let text = "";
  for await (const chunk of input.chunks()) text += chunk;
  return text;
}

/**
 * Lines without their ends, in the groups in which they came: whoever answers line by line can
 * answer each group at once and still never keeps a waiting writer waiting.
 */
export async function* readLineGroups(input: Input): AsyncGenerator<string[]> {
  let rest = "";
  for await (const chunk of input.chunks()) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    if (lines.length > 0) yield lines.map(withoutReturn);
  }
  if (rest !== "") yield [withoutReturn(rest)];
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}
