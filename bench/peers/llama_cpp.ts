/**
 * One model in llama.cpp, by the npm package node-llama-cpp, in a process of its own:
 *
 *     deno run -A --node-modules-dir=manual bench/peers/llama_cpp.ts FOLDER MODEL THREADS CONTEXT
 *
 * FOLDER is where npm has installed the package. A JSON line on standard input asks for a
 * measurement, a JSON line on standard output answers.
 */
import path from "node:path";
import process from "node:process";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

/** What is asked. */
export interface PeerRequest {
  promptTokens: number;
  genTokens: number;
}

/** What is answered. */
export interface PeerTimes {
  prefillSeconds: number;
  decodeSeconds: number;
}

/** The first line: which build runs, or why none does. */
export type PeerStart = { build: string; systemInfo: string } | { problem: string };

/** The part of node-llama-cpp that is used. */
interface Package {
  getLlama(options: Record<string, unknown>): Promise<Llama>;
}
interface Llama {
  llamaCppRelease: { repo: string; release: string };
  systemInfo: string;
  loadModel(options: Record<string, unknown>): Promise<{
    createContext(options: Record<string, unknown>): Promise<{ getSequence(): Sequence }>;
  }>;
}
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: number[], options: Record<string, unknown>): AsyncGenerator<number>;
}

/** Greedy; made-up weights may name any token, also one that ends a text. */
const EVALUATION = { temperature: 0, yieldEogToken: true };

const MAX_BATCH_TOKENS = 512;

async function start(
  [folder, modelPath, threads, contextSize]: string[],
): Promise<{ llama: Llama; sequence: Sequence }> {
  const entry = path.join(folder, "node_modules/node-llama-cpp/dist/index.js");
  const { getLlama } = await import(pathToFileURL(entry).href) as Package;
  const llama = await getLlama({
    gpu: false,
    build: "never",
    progressLogs: false,
    logger: () => {},
    maxThreads: Number(threads),
  });
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: Number(contextSize),
    batchSize: MAX_BATCH_TOKENS,
    threads: { ideal: Number(threads), min: Number(threads) },
    flashAttention: true,
  });
  return { llama, sequence: context.getSequence() };
}

/** Prefill ends with the first token; decode is `genTokens` more. */
async function measure(
  sequence: Sequence,
  { promptTokens, genTokens }: PeerRequest,
): Promise<PeerTimes> {
  await sequence.clearHistory();
  const prompt = Array.from({ length: promptTokens }, (_, i) => i * 7919 % 32_000);
  const started = performance.now();
  const [first] = await take(sequence.evaluate(prompt, EVALUATION), 1);
  const prefilled = performance.now();
  await take(sequence.evaluate([first], EVALUATION), genTokens);
  const decoded = performance.now();
  return {
    prefillSeconds: (prefilled - started) / 1000,
    decodeSeconds: (decoded - prefilled) / 1000,
  };
}

async function take(tokens: AsyncGenerator<number>, count: number): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of tokens) {
    taken.push(token);
    if (taken.length === count) return taken;
  }
  throw new Error(`Cannot measure as llama.cpp stopped after ${taken.length} of ${count} tokens`);
}

function answer(value: PeerStart | PeerTimes | { problem: string }): void {
  console.log(JSON.stringify(value));
}

async function main(): Promise<void> {
  const { llama, sequence } = await start(process.argv.slice(2));
  const { repo, release } = llama.llamaCppRelease;
  answer({ build: `${repo} ${release}`, systemInfo: llama.systemInfo });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    answer(await measure(sequence, JSON.parse(line)));
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    answer({ problem: String((error as Error)?.message ?? error).split("\n")[0] });
  }
  process.exit();
}
