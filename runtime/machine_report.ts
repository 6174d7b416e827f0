import fs from "node:fs";
import path from "node:path";
import { picturesOf } from "./bench/machine/charts.ts";
import { markdownOf } from "./bench/machine/markdown.ts";
import { type Effort, measureMachine } from "./bench/machine/measure.ts";
import { readPeersFile } from "./bench/machine/peers.ts";
import { reasonOf, shown } from "./errors.ts";
import type { MachineReport, MachineReportOptions } from "./bench/machine/types.ts";

/** Where a report goes, and what is told in it. */
export interface ReportFiles {
  /** Folder, made if need be. */
  out: string;
  /** File of the peer benchmark. */
  peers?: string;
  /** Trilith's. */
  version: string;
}

/**
 * Measures this machine and writes `report.md`, its pictures and `report.json` into a folder.
 *
 * @throws {RangeError} If the shape is unknown or does not fit in memory, or there can't be such a folder.
 * @throws {CheckpointError} If the peers' file can't be used.
 */
export async function reportMachine(
  { out, peers, version }: ReportFiles,
  options: Omit<MachineReportOptions, "peers">,
  effort?: Effort,
): Promise<MachineReport> {
  // What may be wrong is found before minutes of measuring.
  const read = peers === undefined ? undefined : await readPeersFile(peers);
  makeFolder(out);
  const report = await measureMachine({ ...options, peers: read }, version, effort);
  writeReport(out, report);
  return report;
}

function makeFolder(folder: string): void {
  try {
    fs.mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new RangeError(
      `Cannot write a report into ${shown(folder)}: ${reasonOf(error)}, use another --out`,
      { cause: error },
    );
  }
}

/** @returns Names of the files that were written. */
export function writeReport(folder: string, report: MachineReport): string[] {
  const files = new Map([
    ["report.md", markdownOf(report)],
    ["report.json", `${JSON.stringify(report, null, 1)}\n`],
    ...picturesOf(report),
  ]);
  for (const [name, text] of files) fs.writeFileSync(path.join(folder, name), text);
  return [...files.keys()];
}
