/** Text from a model, piece by piece: `deno run -A examples/generate.ts [model folder or file]` */
import process from "node:process";
import { loadModel } from "../runtime/mod.ts";

await using model = await loadModel(process.argv[2], { contextSize: 128 });
const generation = model.generate("Once upon a time", { maxTokens: 40, temperature: 0 });
for await (const { text } of generation) process.stdout.write(text);
const { completionTokens, finishReason } = await generation;
console.log(`\n${completionTokens} tokens, ended by ${finishReason}`);
