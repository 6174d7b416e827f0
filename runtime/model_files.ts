/** Where a model's files are: on a disk, or in memory where tests make them. */
import { stat } from "node:fs/promises";
import { type OpenBytes, openBytes } from "./byte_source.ts";
import { readTextFile } from "./json.ts";

export interface ModelFiles {
  has(path: string): Promise<boolean>;
  open: OpenBytes;
  /** Null when there is no such file. @throws {CheckpointError} If it can't be read. */
  text(path: string): Promise<string | null>;
}

export const DISK: ModelFiles = {
  has: (path) => stat(path).then(() => true, () => false),
  open: openBytes,
  text: readTextFile,
};
