import type { Command } from "commander";
import fs from "node:fs";
import { stat } from "node:fs/promises";
import { UsageError } from "../runtime/errors.ts";
import type { ChunkOptions, TextProgress } from "../runtime/text_chunks.ts";
import type { TextSource } from "../runtime/text_source.ts";
import { wholeNumber } from "./flags.ts";
import type { Io } from "./io.ts";
import { checkPermissions } from "./permissions.ts";

/** Flags of commands that run a model over a text. */
export interface TextFlags {
  ctx?: number;
  stride?: number;
  chunks?: number;
}

export function addTextFlags(command: Command): Command {
  return command
    .option(
      "--chunks <n>",
      "stop after so many chunks; default: the whole text",
      wholeNumber("--chunks", 1),
    )
    .option(
      "--stride <n>",
      "a chunk every n tokens, of which its last n are predicted; default: half of each chunk",
      wholeNumber("--stride", 2),
    );
}

export function chunkOptionsOf({ ctx, stride, chunks }: TextFlags): ChunkOptions {
  return { chunkTokens: ctx, stride, chunks };
}

/** What the help of such commands says about them. */
export const CHUNKS_HELP = `
The text is cut into chunks of --ctx tokens (default: 512, or the model's context if that is less).
The first half of a chunk is context only, the second half is predicted; a last chunk that is not
full is left out. The file is read as it goes: it may be larger than memory.
`;

/**
 * A file that is read as it goes, or standard input for "-".
 *
 * @throws {UsageError} If there is no such file.
 */
export async function openText(path: string, { stdin }: Io): Promise<TextSource> {
  return path === "-" ? { parts: stdin.chunks(), bytes: null } : await openTextFile(path, "--file");
}

/**
 * A file that is read as it goes, as often as it is asked for.
 *
 * @param flag By which it was given.
 * @throws {UsageError} If there is no such file.
 */
export async function openTextFile(path: string, flag: string): Promise<TextSource> {
  checkPermissions({ name: "read", path });
  try {
    const found = await stat(path);
    // Read from its start each time it is gone through.
    const parts = { [Symbol.asyncIterator]: () => fileParts(path) };
    if (found.isFile()) return { parts, bytes: found.size };
    throw new UsageError(`Cannot read ${flag} ${path}: it is no file`);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code } = error as { code?: string };
    const why = code === "ENOENT" ? "there is no such file" : code ?? String(error);
    throw new UsageError(`Cannot read ${flag} ${path}: ${why}`, { cause: error });
  }
}

async function* fileParts(path: string): AsyncGenerator<string> {
  for await (const part of fs.createReadStream(path, "utf8")) yield part as string;
}

/** Tells how far a run over a text is, and how long it will still take. */
export class TextClock {
  readonly #startedMs = performance.now();

  /** "[12/~480] 3 min left": chunks, "~" where their number is an estimate. */
  line({ done, total, isEstimate }: TextProgress): string {
    if (total === null) return `[${done}]`;
    const share = done / total;
    const leftMs = (performance.now() - this.#startedMs) * (1 - share) / share;
    const left = done < total ? ` ${duration(leftMs)} left` : "";
    return `[${done}/${isEstimate ? "~" : ""}${total}]${left}`;
  }
}

/** Two minutes and more in minutes, two hours and more in hours. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
