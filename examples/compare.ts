/** How much int8 keys and values change: `deno run -A examples/compare.ts [model] [text file]` */
import { readFile } from "node:fs/promises";
import process from "node:process";
import { compareModels, loadModel } from "../runtime/mod.ts";

const [, , path, file] = process.argv;
const text = file === undefined
  ? "Once upon a time there was a fox. ".repeat(20)
  : await readFile(file, "utf8");
await using plain = await loadModel(path, { contextSize: 64 });
await using small = await loadModel(path, { contextSize: 64, kvType: "int8" });
const { divergence, topAgreement } = await compareModels(plain, small, text, { chunks: 2 });
console.log(
  `${divergence.mean.toFixed(5)} nats apart, ${100 * topAgreement.mean} % the same token`,
);
