/**
 * Models in llama.cpp, by the npm package node-llama-cpp, in a process of its own:
 *
 *     deno run -A --node-modules-dir=manual tests/llama_cpp.ts FOLDER
 *
 * FOLDER is where npm has installed the package. Standard input is a JSON array of requests, standard
 * output ends with a line that is the JSON array of answers.
 */
import path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

/** A model, and what to do with it. */
export interface LlamaCppRequest {
  model: string;
  /** To be tokenized, without a BOS; special tokens in them are tokens. */
  texts?: readonly string[];
  /** To be gone on from, greedily, ends of text being tokens like others. */
  prompts?: readonly (readonly number[])[];
  newTokens?: number;
}

export interface LlamaCppAnswer {
  bos: number | null;
  eos: number | null;
  ids: number[][];
  /** New tokens of each prompt. */
  greedy: number[][];
  /** Those as text. */
  greedyTexts: string[];
}

/** The part of node-llama-cpp that is used. */
interface Package {
  getLlama(options: Record<string, unknown>): Promise<{
    loadModel(options: Record<string, unknown>): Promise<LoadedModel>;
  }>;
}
interface LoadedModel {
  tokens: { bos: number | null; eos: number | null };
  tokenize(text: string, special: boolean): number[];
  detokenize(ids: number[]): string;
  createContext(options: Record<string, unknown>): Promise<{ getSequence(): Sequence }>;
  dispose(): Promise<void>;
}
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: number[], options: Record<string, unknown>): AsyncGenerator<number>;
}

const CONTEXT_TOKENS = 256;

async function answer(
  llama: Awaited<ReturnType<Package["getLlama"]>>,
  { model: modelPath, texts = [], prompts = [], newTokens = 0 }: LlamaCppRequest,
): Promise<LlamaCppAnswer> {
  const vocabOnly = prompts.length === 0;
  const model = await llama.loadModel({ modelPath, gpuLayers: 0, vocabOnly });
  try {
    const { bos, eos } = model.tokens;
    const ids = texts.map((text) => model.tokenize(text, true));
    const greedy = vocabOnly ? [] : await continued(model, prompts, newTokens);
    return { bos, eos, ids, greedy, greedyTexts: greedy.map((tokens) => model.detokenize(tokens)) };
  } finally {
    await model.dispose();
  }
}

async function continued(
  model: LoadedModel,
  prompts: readonly (readonly number[])[],
  newTokens: number,
): Promise<number[][]> {
  const context = await model.createContext({
    contextSize: CONTEXT_TOKENS,
    batchSize: CONTEXT_TOKENS,
    threads: { ideal: 1, min: 1 },
  });
  const sequence = context.getSequence();
  const greedy: number[][] = [];
  for (const prompt of prompts) {
    await sequence.clearHistory();
    const tokens: number[] = [];
    const options = { temperature: 0, yieldEogToken: true };
    for await (const token of sequence.evaluate([...prompt], options)) {
      tokens.push(token);
      if (tokens.length === newTokens) break;
    }
    greedy.push(tokens);
  }
  return greedy;
}

async function readInput(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += chunk;
  return text;
}

if (import.meta.main) {
  const entry = path.join(process.argv[2], "node_modules/node-llama-cpp/dist/index.js");
  const { getLlama } = await import(pathToFileURL(entry).href) as Package;
  const llama = await getLlama({
    gpu: false,
    build: "never",
    progressLogs: false,
    logger: () => {},
    maxThreads: 1,
  });
  const answers: LlamaCppAnswer[] = [];
  for (const request of JSON.parse(await readInput())) answers.push(await answer(llama, request));
  console.log(JSON.stringify(answers));
  process.exit();
}
