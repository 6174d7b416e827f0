import { type Command, Option } from "commander";
import { KERNEL_CHOICES } from "../codegen/isa.ts";
import { KV_TYPES } from "../codegen/model_spec.ts";
import { UsageError } from "../runtime/errors.ts";
import { DEFAULT_KV_TYPE } from "../runtime/kv_cache.ts";
import { isWithin, type OptionRange, ruleOf, SAMPLER_RANGES } from "../runtime/sampler.ts";
import { MOST_DRAFT_TOKENS, type SpeculateChoice } from "../runtime/speculation.ts";
import type { LoadOptions } from "../runtime/types.ts";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const WHOLE_NUMBER = /^[+-]?\d+$/;

const HEADS = ["auto", "full"] satisfies LoadOptions["head"][];

/** A parser for commander: the number, or a usage error with the flag, the value and the rule. */
export function numberParser(range: OptionRange): (text: string) => number {
  return (text) => {
    const pattern = range.whole ? WHOLE_NUMBER : NUMBER;
    const value = pattern.test(text.trim()) ? Number(text) : NaN;
    if (isWithin(value, range)) return value;
    throw new UsageError(`Cannot use ${range.flag} ${quoted(text)}: give ${ruleOf(range)}`);
  };
}

export function wholeNumber(flag: string, least: number, most = 2 ** 31 - 1) {
  return numberParser({ flag, least, most, whole: true });
}

/** Whole numbers from "1,2,4", each within the range. */
export function wholeNumbers(flag: string, least: number, most: number) {
  const parse = wholeNumber(flag, least, most);
  return (text: string): number[] => text.split(",").map(parse);
}

/** A value as it was typed, in quotes when one would not see where it ends. */
function quoted(text: string): string {
  return /^[\w.+-]{1,60}$/.test(text) ? text : JSON.stringify(text.slice(0, 60));
}

/** Token ids from "1,2,3"; spaces and brackets are allowed, as in a copied JSON array. */
export function tokenIds(flag: string): (text: string) => number[] {
  return (text) => {
    const inner = text.trim().replace(/^\[(.*)\]$/s, "$1").trim();
    const parts = inner === "" ? [] : inner.split(/\s*,\s*|\s+/);
    if (parts.length > 0 && parts.every((part) => /^\d{1,9}$/.test(part))) return parts.map(Number);
    throw new UsageError(`Cannot use ${flag} ${quoted(text)}: give token ids such as 1,2,3`);
  };
}

/** Commander's parser of a repeatable flag. */
export function collected(flag: string, what = "a pattern such as *.json") {
  return (text: string, previous: string[] = []): string[] => {
    if (text === "") throw new UsageError(`Cannot use an empty ${flag}: give ${what}`);
    return [...previous, text];
  };
}

const BIAS = /^(\d{1,9})=(.+)$/;

function collectedBias(text: string, previous = new Map<number, number>()): Map<number, number> {
  const [, id, bias] = BIAS.exec(text.trim()) ?? [];
  const value = bias === "-inf" ? -Infinity : NUMBER.test(bias ?? "") ? Number(bias) : NaN;
  if (Number.isNaN(value) || value === Infinity) {
    throw new UsageError(
      `Cannot use --logit-bias ${
        quoted(text)
      }: give ID=BIAS such as 42=-1.5, or 42=-inf to ban a token`,
    );
  }
  return new Map(previous).set(Number(id), value);
}

/** Flags of all commands that load a model. */
export interface ModelFlags {
  model?: string;
  pull?: boolean;
  threads?: number;
  ctx?: number;
  kernels?: LoadOptions["kernels"];
  scheme?: string;
  /** False with --no-tune. */
  tune?: boolean;
  kvType?: LoadOptions["kvType"];
  quantize?: LoadOptions["quantize"];
  i2sLayout?: LoadOptions["i2sLayout"];
  head?: LoadOptions["head"];
  quiet?: boolean;
  json?: boolean;
}

export function addJsonFlag(command: Command): Command {
  return command.option("--json", "print one JSON document on standard output");
}

export function addQuietFlag(command: Command): Command {
  return command.option("-q, --quiet", "no progress and no statistics on standard error");
}

/** @param model False for a command whose arguments name its models. */
export function addModelFlags(command: Command, { model = true } = {}): Command {
  if (model) {
    command.option(
      "-m, --model <model>",
      "folder, file, or a name of the hub's; default: the embedded story model",
    );
  }
  command
    .option("--pull", "fetch the model from the hub first if it is not in its cache")
    .option(
      "-t, --threads <n>",
      "native threads; default: the physical cores we may use",
      wholeNumber("--threads", 1, 1024),
    )
    .option(
      "-c, --ctx <n>",
      "tokens that fit in the context; default: the model's",
      wholeNumber("--ctx", 1),
    )
    .addOption(kernelsOption())
    .addOption(schemeOption())
    .option("--no-tune", "do not measure which kernels are best at a large model's first use")
    .addOption(kvTypeOption())
    .addOption(
      new Option("--quantize <method>", "ternarise a plain float checkpoint").choices(["absmean"]),
    )
    .addOption(i2sLayoutOption());
  return addQuietFlag(addJsonFlag(command));
}

/** No file says which of the three it has. */
export function i2sLayoutOption(flag = "--i2s-layout", whose = "a"): Option {
  return new Option(`${flag} <layout>`, `how I2_S weights of ${whose} GGUF file lie; default: x86`)
    .choices(["x86", "arm", "rows4"]);
}

export function kvTypeOption(): Option {
  const help = `type of cached keys and values; default: ${DEFAULT_KV_TYPE}`;
  return new Option("--kv-type <type>", help).choices(KV_TYPES);
}

export function kernelsOption(): Option {
  return new Option("--kernels <isa>", "kernels to run; default: the best of this CPU")
    .choices(KERNEL_CHOICES);
}

/** What schemes there are depends on the CPU: the kernels check the name. */
export function schemeOption(): Option {
  return new Option(
    "--scheme <name>",
    "how they multiply; default: as tuned, or the CPU's default",
  );
}

export function loadOptionsOf(flags: ModelFlags): LoadOptions {
  return {
    threads: flags.threads,
    contextSize: flags.ctx,
    kernels: flags.kernels,
    scheme: flags.scheme,
    tuneAtFirstUse: flags.tune,
    kvType: flags.kvType,
    quantize: flags.quantize,
    i2sLayout: flags.i2sLayout,
    head: flags.head,
  };
}

/** Flags of `generate` and `chat` that say how tokens are drawn and when to stop. */
export interface SamplingFlags {
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  typicalP?: number;
  repeatPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  penaltyLastN?: number;
  logitBias?: Map<number, number>;
  seed?: number;
  stop?: string[];
  ignoreEos?: boolean;
  speculate?: SpeculateChoice;
}

const SAMPLING_HELP: Record<keyof typeof SAMPLER_RANGES, string> = {
  temperature: "0 is greedy",
  topK: "draw from the n most likely tokens; 0: from all",
  topP: "draw from the most likely tokens of this mass together",
  minP: "draw from tokens at least this many times as likely as the best",
  typicalP: "draw from the locally typical tokens of this mass",
  repeatPenalty: "divide the logits of tokens seen lately; 1: off",
  presencePenalty: "subtract from the logits of tokens seen lately",
  frequencyPenalty: "subtract for every time a token was seen lately",
  penaltyLastN: "tokens that penalties look back on; -1: all; default: 64",
  seed: "the same seed gives the same text; default: a random one",
};

export function addSamplingFlags(command: Command): Command {
  command.option(
    "-n, --max-tokens <n>",
    "most tokens to generate; default: what the context holds",
    wholeNumber("--max-tokens", 0),
  );
  for (const [name, range] of Object.entries(SAMPLER_RANGES)) {
    const help = SAMPLING_HELP[name as keyof typeof SAMPLER_RANGES];
    command.option(`${range.flag} <n>`, help, numberParser(range));
  }
  return command
    .option(
      "--logit-bias <id=bias>",
      "add to a token's logit; -inf bans it; repeatable",
      collectedBias,
    )
    .option(
      "--stop <text>",
      "end before this text; repeatable",
      collected("--stop", "the text that ends the answer"),
    )
    .option("--ignore-eos", "go on past end-of-text tokens")
    .option(
      "--speculate <n>",
      "tokens to guess ahead where the text repeats itself: auto, off or a number; default: auto",
      speculateChoice,
    )
    .addOption(headOption());
}

export function headOption(): Option {
  return new Option("--head <kind>", "full: score every token; default: auto").choices(HEADS);
}

const draftTokens = wholeNumber("--speculate", 1, MOST_DRAFT_TOKENS);

function speculateChoice(text: string): SpeculateChoice {
  if (text === "auto" || text === "off") return text;
  if (WHOLE_NUMBER.test(text.trim())) return draftTokens(text);
  throw new UsageError(
    `Cannot use --speculate ${
      quoted(text)
    }: give auto, off or a whole number from 1 to ${MOST_DRAFT_TOKENS}`,
  );
}

/** What `addSamplingFlags`' commands say in their help about defaults. */
export const SAMPLING_NOTE = `
Sampling: without --temperature, --top-k, --top-p, --min-p and --typical-p the model's own
generation_config.json decides, and without one the most likely token is taken (greedy). With any
of them the model's advice, if it has any, fills in the others. The order is bias, penalties,
temperature, top-k, typical-p, top-p, min-p.

Speed: --speculate runs tokens ahead that followed the same words before, as far as that pays, and
--head auto scores only tokens that can still be drawn (greedy or with --top-k). Neither changes
the text.
`;

/**
 * Calls something whose RangeErrors are about what flags asked for. Not async, as a Generation is
 * a thenable that `await` would run to its end.
 */
export function withFlagErrors<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw asUsageError(error);
  }
}

/** An error of a call that only had its options to complain of: a RangeError is wrong usage. */
export function asUsageError(error: unknown): unknown {
  return error instanceof RangeError ? new UsageError(error.message, { cause: error }) : error;
}
