import process from "node:process";
import { engine } from "./cli/engine.ts";
import { processIo } from "./cli/io.ts";
import { main } from "./cli/main.ts";

// Native threads and an open standard input would keep the process alive.
if (import.meta.main) process.exit(await main(process.argv.slice(2), processIo(), engine));
