/**
 * Runs the command line, and tells on the last line of standard error what its process took in bytes:
 * `deno run -A tests/peak_memory.ts generate "Once upon a time" --json`. Linux only.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { engine } from "../cli/engine.ts";
import { processIo } from "../cli/io.ts";
import { main } from "../cli/main.ts";

/** The most that was resident, and now what is. Mapped pages count once they have been read. */
export interface ResidentBytes {
  peak: number;
  anonymous: number;
  file: number;
}

function residentBytes(): ResidentBytes {
  const status = readFileSync("/proc/self/status", "utf8");
  const bytes = (name: string) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]);
  return { peak: bytes("VmHWM"), anonymous: bytes("RssAnon"), file: bytes("RssFile") };
}

if (import.meta.main) {
  const code = await main(process.argv.slice(2), processIo(), engine);
  process.stderr.write(`\n${JSON.stringify(residentBytes())}\n`);
  process.exit(code);
}
