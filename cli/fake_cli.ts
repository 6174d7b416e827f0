/** The command line as a process of its own, with the fake model: for tests of pipes and signals. */
import process from "node:process";
import { processIo } from "./io.ts";
import { main } from "./main.ts";
import { fakeEngine } from "./test_helpers.ts";

const { engine } = fakeEngine({ hasTemplate: true, tokenMs: 20 });
process.exit(await main(process.argv.slice(2), processIo(), engine));
