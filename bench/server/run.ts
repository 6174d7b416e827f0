/**
 * Load on the server: clients at once that stream chat completions, as many as each number says.
 *
 *     deno run -A bench/server/run.ts --shape bitnet-700m --threads 2 --markdown
 *
 * The server is a process of its own on this machine, and so shares its CPU with the clients. All
 * prompts begin with the same instructions and go on differently; answers all have the same length.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { shapeOf } from "../../runtime/shapes.ts";
import { type LoadReport, measureLoad, measurePrefill } from "./load.ts";
import { markdownOf, textOf } from "./report.ts";
import { ServerProcess } from "./server_process.ts";
import { syntheticModel } from "./synthetic_model.ts";

export interface ServerBenchOptions {
  /** How many clients at once, in turn. */
  clients: readonly number[];
  /** A folder; else a shape with made-up weights; else the embedded story model. */
  model?: string;
  shape?: string;
  /** Of a server that runs already, instead of one that is started. */
  url?: string;
  threads?: number;
  /** Of the server's cache of keys and values; default: the server's. */
  kvType?: string;
  maxTokens: number;
  promptWords: readonly [least: number, most: number];
  /** Words of the prompt that the prefill rate is measured with. */
  prefillWords: number;
  rounds: number;
}

export interface ServerBenchReport {
  model: string;
  threads: number | null;
  /** The engine's own rate over one long prompt. */
  prefillTokensPerSecond: number;
  loads: LoadReport[];
  /** Decode rate of two clients over that of one, and of 16 over the prefill rate. */
  twoClientsRatio: number | null;
  sixteenClientsFraction: number | null;
}

/** Starts a server where none is given, and ends it. */
export async function runServerBench(
  options: ServerBenchOptions,
  onMessage: (message: string) => void = () => {},
): Promise<ServerBenchReport> {
  if (options.url !== undefined) return await measure(options.url, options, onMessage);
  const model = await modelOf(options, onMessage);
  onMessage("Starting the server");
  await using server = await ServerProcess.start({ args: serverArgs(options, model) });
  return await measure(server.url, options, onMessage);
}

async function modelOf(
  { model, shape }: ServerBenchOptions,
  onMessage: (message: string) => void,
): Promise<string | null> {
  if (shape === undefined) return model ?? null;
  const spec = shapeOf(shape);
  onMessage(`Writing made-up weights of ${shape}, once`);
  return await syntheticModel(shape, spec);
}

/** Tokens of a word of `prompts.ts`, with room for its punctuation and for templates. */
const WORD_TOKENS = 2;
const TEMPLATE_TOKENS = 100;

/** The cache holds all clients' sequences at once: what happens without room is not measured here. */
function serverArgs(options: ServerBenchOptions, model: string | null): string[] {
  const { clients, promptWords, prefillWords, maxTokens, threads, kvType } = options;
  const sequence = WORD_TOKENS * promptWords[1] + TEMPLATE_TOKENS + maxTokens;
  const most = Math.max(...clients);
  const cache = Math.max(most * sequence, WORD_TOKENS * prefillWords + TEMPLATE_TOKENS);
  return [
    ...(model === null ? [] : ["--model", model]),
    ...(threads === undefined ? [] : ["--threads", String(threads)]),
    ...(kvType === undefined ? [] : ["--kv-type", kvType]),
    ...["--cache-tokens", String(cache)],
  ];
}

async function measure(
  url: string,
  options: ServerBenchOptions,
  onMessage: (message: string) => void,
): Promise<ServerBenchReport> {
  const model = await servedModel(url);
  const target = { ...options, url, model };
  onMessage("Warming up");
  await measureLoad(1, { ...target, rounds: 1 });
  onMessage("Measuring prefill");
  const prefillTokensPerSecond = await measurePrefill(target, options.prefillWords);
  const loads: LoadReport[] = [];
  for (const clients of options.clients) {
    onMessage(`Measuring ${clients} clients`);
    loads.push(await measureLoad(clients, target));
  }
  const rate = (clients: number) =>
    loads.find((load) => load.clients === clients)?.decodeTokensPerSecond ?? null;
  return {
    model,
    threads: options.threads ?? null,
    prefillTokensPerSecond,
    loads,
    twoClientsRatio: ratioOf(rate(2), rate(1)),
    sixteenClientsFraction: ratioOf(rate(16), prefillTokensPerSecond),
  };
}

function ratioOf(rate: number | null, base: number | null): number | null {
  return rate === null || base === null ? null : rate / base;
}

async function servedModel(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/models`);
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()).data[0].id;
}

// ---------------------------------------------------------------- command line

function parseOptions(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      clients: { type: "string", default: "1,2,4,16,64" },
      model: { type: "string", short: "m" },
      shape: { type: "string" },
      url: { type: "string" },
      threads: { type: "string", short: "t" },
      "kv-type": { type: "string" },
      "prompt-words": { type: "string", default: "20,150" },
      "max-tokens": { type: "string", default: "160" },
      rounds: { type: "string", default: "2" },
      json: { type: "boolean" },
      markdown: { type: "boolean" },
    },
  });
  return values;
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new RangeError(`Cannot use --${name} ${text}: give a whole number of 1 or more`);
}

function wordsOf(text: string): [least: number, most: number] {
  const words = text.split(",").map((each) => number("prompt-words", each));
  if (words.length === 2 && words[0] <= words[1]) return [words[0], words[1]];
  throw new RangeError(`Cannot use --prompt-words ${text}: give the least and the most, as 20,150`);
}

async function main(): Promise<void> {
  const values = parseOptions(process.argv.slice(2));
  const report = await runServerBench({
    clients: values.clients.split(",").map((each) => number("clients", each)),
    model: values.model,
    shape: values.shape,
    url: values.url,
    threads: values.threads === undefined ? undefined : number("threads", values.threads),
    maxTokens: number("max-tokens", values["max-tokens"]),
    kvType: values["kv-type"],
    promptWords: wordsOf(values["prompt-words"]),
    prefillWords: 340,
    rounds: number("rounds", values.rounds),
  }, (message) => console.error(`  ${message}`));
  if (values.json) console.log(JSON.stringify(report));
  else console.log(values.markdown ? markdownOf(report) : textOf(report));
}

if (import.meta.main) await main();
