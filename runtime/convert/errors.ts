/** What can go wrong while a model is converted, beside what reading it says. */
import { shown } from "../errors.ts";

/** A tensor's values do not fit in what is written; whoever knows its name adds it. */
export class RangeFault extends RangeError {
  override readonly name = "RangeFault";
}

/** The output can't be written, or what was written is not what was meant. */
export class OutputError extends Error {
  override readonly name = "OutputError";
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full: make room, the same command then goes on where it stopped",
  EDQUOT:
    "your quota of disk space is used up: make room, the same command then goes on where it stopped",
  EROFS: "the file system is read-only: give another place",
  EACCES: "this user may not write there: give another place",
  EPERM: "this user may not write there: give another place",
  ENOENT: "its folder is not there: make it first",
  ENOTDIR: "a part of its path is a file: give another place",
  EFBIG: "files of that size are not allowed there: give another place, or --split-max-size",
  ENAMETOOLONG: "its name is too long: give a shorter one",
};

/** What the file system says of a place that can't be written, in words. */
export function outputError(path: string, error: unknown): Error {
  const reason = REASONS[(error as { code?: string } | null)?.code ?? ""];
  if (error instanceof OutputError || reason === undefined) return error as Error;
  return new OutputError(`Cannot write ${shown(path)}: ${reason}`, { cause: error });
}
