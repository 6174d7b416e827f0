/**
 * How far an output is: lines of JSON in a file among those that are written. A kill may cut the last
 * line off, which then does not count.
 */
import fs from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { readTextFile } from "../json.ts";

export const JOURNAL = "journal.jsonl";

export interface JournalState {
  /** Of what and how; null where there is no journal. */
  identity: string | null;
  /** Parts that are finished, of all files in their order. */
  parts: number;
  /** What was to be remembered of them. */
  notes: unknown[];
  /** Once all is finished: what reading back has found. */
  whole: { verified: unknown } | null;
}

export async function readJournal(folder: string): Promise<JournalState> {
  const text = await readTextFile(join(folder, JOURNAL)).catch(() => null);
  const lines = parseLines(text);
  const whole = lines.findLast(({ isWhole }) => isWhole === true);
  return {
    identity: typeof lines[0]?.identity === "string" ? lines[0].identity : null,
    parts: Number(lines.findLast(({ parts }) => parts !== undefined)?.parts ?? 0),
    notes: lines.flatMap(({ notes }) => Array.isArray(notes) ? notes : []),
    whole: whole === undefined ? null : { verified: whole.verified ?? null },
  };
}

/** Whole lines only. */
function parseLines(text: string | null): Record<string, unknown>[] {
  const lines: Record<string, unknown>[] = [];
  for (const line of text?.split("\n").slice(0, -1) ?? []) {
    try {
      lines.push(JSON.parse(line));
    } catch {
      return lines;
    }
  }
  return lines;
}

export function beginJournal(folder: string, identity: string): void {
  fs.writeFileSync(join(folder, JOURNAL), `${JSON.stringify({ identity })}\n`);
}

export class JournalWriter implements AsyncDisposable {
  private constructor(private readonly handle: FileHandle) {}

  /** Goes on behind the last whole line. */
  static async open(folder: string): Promise<JournalWriter> {
    const path = join(folder, JOURNAL);
    const end = fs.readFileSync(path).lastIndexOf("\n") + 1;
    fs.truncateSync(path, end);
    return new JournalWriter(await open(path, "a"));
  }

  async tell(parts: number, notes: readonly unknown[]): Promise<void> {
    await this.handle.appendFile(`${JSON.stringify({ parts, notes })}\n`);
  }

  /** From here on the output is complete, and only has to be moved. */
  async end(verified: unknown): Promise<void> {
    await this.handle.appendFile(`${JSON.stringify({ isWhole: true, verified })}\n`);
    await this.handle.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.handle.close();
  }
}
