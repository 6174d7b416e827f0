/**
 * The command line as a process of its own, with the fake model: for tests of pipes and signals.
 * The model `stuck` loads for ever, whatever Ctrl-C says.
 */
import process from "node:process";
import type { Engine } from "./engine.ts";
import { processIo } from "./io.ts";
import { main } from "./main.ts";
import { fakeEngine } from "./test_helpers.ts";

const { engine } = fakeEngine({ hasTemplate: true, tokenMs: 20 });
const withStuckModel: Engine = {
  ...engine,
  async loadModel(path, options) {
    if (path !== "stuck") return engine.loadModel(path, options);
    options.onProgress?.({ phase: "compile", message: "Stuck" });
    while (true) await new Promise((resolve) => setTimeout(resolve, 1000));
  },
};
process.exit(await main(process.argv.slice(2), processIo(), withStuckModel));
