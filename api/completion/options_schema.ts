/** Fields by which clients say how tokens are drawn, and what they mean to the engine. */
import { z } from "@hono/zod-openapi";
import { type OptionRange, SAMPLER_RANGES } from "../../runtime/sampler.ts";
import { MOST_DRAFT_TOKENS } from "../../runtime/speculation.ts";
import { samplerOptionsOf } from "../../runtime/sampler_advice.ts";
import type { GenerateOptions, Model, SamplerOptions } from "../../runtime/types.ts";

/** Most choices that a client may ask for; a server may be set to fewer. */
export const MOST_CHOICES = 16;
/** Most strings of `stop`. */
const MOST_STOPS = 16;
/** OpenAI's limit of `logit_bias`; the lowest value bans a token. */
const MOST_BIAS = 100;

/** A number as the sampler takes it; null is as good as nothing. */
export function numeric(
  { least, most, whole, aboveLeast }: OptionRange,
  description: string,
): z.ZodOptional<z.ZodNullable<z.ZodNumber>> {
  const bounded = (whole ? z.int() : z.number()).max(most);
  const schema = aboveLeast ? bounded.gt(least) : bounded.min(least);
  return schema.nullish().openapi({ description });
}

const wide = (range: OptionRange, least: number): OptionRange => ({ ...range, least });

export const Stop = z.union([
  z.string().min(1),
  z.array(z.string().min(1)).max(MOST_STOPS),
]).nullish().openapi({ description: "Text that ends the answer and is no part of it" });

/** What zod's documentation generator has no types for. */
const BIAS_KEYS: object = {
  patternProperties: {
    "^[0-9]{1,9}$": { type: "number", minimum: -MOST_BIAS, maximum: MOST_BIAS },
  },
};

export const LogitBias = z.record(
  z.string().regex(/^\d{1,9}$/, "token ids are whole numbers"),
  z.number().min(-MOST_BIAS).max(MOST_BIAS),
).nullish().openapi({
  type: ["object", "null"],
  description: `Added to the logits of token ids; -${MOST_BIAS} bans the token`,
  ...BIAS_KEYS,
  additionalProperties: false,
});

/** All samplers, by the names that OpenAI, llama-server and vLLM have for them. */
export const samplingFields = {
  temperature: numeric(SAMPLER_RANGES.temperature, "0 takes the likeliest token"),
  top_p: numeric(SAMPLER_RANGES.topP, "Draw from the likeliest tokens of this mass together"),
  top_k: numeric(wide(SAMPLER_RANGES.topK, -1), "Draw from so many likeliest tokens; 0, -1: all"),
  min_p: numeric(SAMPLER_RANGES.minP, "Draw from tokens so many times as likely as the best"),
  typical_p: numeric(SAMPLER_RANGES.typicalP, "Draw from the locally typical tokens of this mass"),
  repeat_penalty: numeric(SAMPLER_RANGES.repeatPenalty, "Divides logits of tokens seen lately"),
  repetition_penalty: numeric(SAMPLER_RANGES.repeatPenalty, "Another name of repeat_penalty"),
  presence_penalty: numeric(SAMPLER_RANGES.presencePenalty, "Taken off tokens seen lately"),
  frequency_penalty: numeric(SAMPLER_RANGES.frequencyPenalty, "Taken off every time it was seen"),
  repeat_last_n: numeric(
    SAMPLER_RANGES.penaltyLastN,
    "Tokens that penalties look back on; -1: all",
  ),
  penalty_last_n: numeric(SAMPLER_RANGES.penaltyLastN, "Another name of repeat_last_n"),
  seed: numeric(
    wide(SAMPLER_RANGES.seed, -1),
    "The same seed gives the same text; -1: a random one",
  ),
};

export const Sampling = z.object(samplingFields);

/** What clients may ask of the engine beside samplers: vLLM's and llama-server's names, and our own. */
export const engineFields = {
  ignore_eos: z.boolean().nullish().openapi({ description: "Go on past end-of-text tokens" }),
  cache_prompt: z.boolean().nullish().openapi({
    description: "Read and keep what equal beginnings have in common; default true",
  }),
  speculate: z.union([z.enum(["auto", "off"]), z.int().min(1).max(MOST_DRAFT_TOKENS)]).nullish()
    .openapi({ description: "Tokens to guess ahead where the text repeats itself; same text" }),
};

const Engine = z.object(engineFields);

export function engineOptionsOf(
  { ignore_eos, cache_prompt, speculate }: z.output<typeof Engine>,
): Pick<GenerateOptions, "ignoreEos" | "cachePrompt" | "speculate"> {
  return {
    ignoreEos: ignore_eos ?? false,
    cachePrompt: cache_prompt ?? true,
    speculate: speculate ?? "auto",
  };
}

/** The sampler of a request, with the model's own advice for what it leaves open. */
export function samplerOf(
  body: z.output<typeof Sampling> & { logit_bias?: z.output<typeof LogitBias> },
  { generationDefaults }: Pick<Model, "generationDefaults">,
): SamplerOptions {
  const given: SamplerOptions = {
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    topK: body.top_k === -1 ? 0 : body.top_k ?? undefined,
    minP: body.min_p ?? undefined,
    typicalP: body.typical_p ?? undefined,
    repeatPenalty: body.repeat_penalty ?? body.repetition_penalty ?? undefined,
    presencePenalty: body.presence_penalty ?? undefined,
    frequencyPenalty: body.frequency_penalty ?? undefined,
    penaltyLastN: body.repeat_last_n ?? body.penalty_last_n ?? undefined,
    seed: body.seed === -1 ? undefined : body.seed ?? undefined,
    logitBias: biasOf(body.logit_bias),
  };
  return samplerOptionsOf(given, generationDefaults);
}

function biasOf(bias: z.output<typeof LogitBias>): Map<number, number> | undefined {
  if (bias === undefined || bias === null) return undefined;
  return new Map(
    Object.entries(bias).map((
      [id, value],
    ) => [Number(id), value === -MOST_BIAS ? -Infinity : value]),
  );
}

export function stopsOf(stop: z.output<typeof Stop>): readonly string[] {
  return typeof stop === "string" ? [stop] : stop ?? [];
}

/** Clients write -1 for "as many as fit". */
export function maxTokensOf(
  ...limits: readonly (number | null | undefined)[]
): Pick<GenerateOptions, "maxTokens"> {
  const limit = limits.find((value) => value !== undefined && value !== null);
  return limit === undefined || limit! < 0 ? {} : { maxTokens: limit! };
}
