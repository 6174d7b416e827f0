/** generation_config.json: which tokens stop, and the sampler that the model's authors advise. */
import type { Companions } from "./companions.ts";
import type { ModelConfig } from "./config.ts";
import { ConfigReader } from "./config_reader.ts";
import { CheckpointError } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject } from "./json.ts";
import type { GenerationDefaults, Tokenizer } from "./types.ts";

const FILE = "generation_config.json";

/**
 * Tokens of the Llama 3 vocabulary that end a text and a turn. Configs often name only one of
 * them, and then chats of the others never end.
 */
const LLAMA3_ENDS = ["<|end_of_text|>", "<|eot_id|>"];

/** @throws {CheckpointError} If the file is damaged. A missing one is fine: config.json remains. */
export async function readGenerationDefaults(
  companions: Companions,
  config: ModelConfig,
  tokenizer: Tokenizer | null = null,
): Promise<GenerationDefaults> {
  return parseGenerationDefaults(await companions.json(FILE) ?? {}, config, tokenizer);
}

/** As `readGenerationDefaults`, from parsed JSON. */
export function parseGenerationDefaults(
  json: Json,
  config: Pick<ModelConfig, "bosTokenId" | "eosTokenIds"> & { spec: { vocabSize: number } },
  tokenizer: Tokenizer | null = null,
): GenerationDefaults {
  if (!isJsonObject(json)) throw new CheckpointError(`Cannot use ${FILE}: it must be an object`);
  const reader = new ConfigReader(json, FILE);
  const { vocabSize } = config.spec;
  const eos = [
    ...reader.tokenIds("eos_token_id", vocabSize),
    ...config.eosTokenIds,
    ...llama3Ends(tokenizer, vocabSize),
  ];
  return {
    eosTokenIds: [...new Set(eos)],
    bosTokenId: reader.tokenIds("bos_token_id", vocabSize)[0] ?? config.bosTokenId,
    padTokenId: reader.tokenIds("pad_token_id", vocabSize)[0] ?? null,
    doSample: reader.flag("do_sample", false),
    ...samplerOf(reader),
    ...impliedTopK(json),
  };
}

function llama3Ends(tokenizer: Tokenizer | null, vocabSize: number): number[] {
  const ids = LLAMA3_ENDS.map((token) => tokenizer?.tokenId(token) ?? -1);
  const isLlama3 = ids.every((id) => id >= 0 && id < vocabSize && tokenizer!.isSpecial(id));
  return isLlama3 ? ids : [];
}

/**
 * Of a sampler that does not say, transformers keeps 50 tokens; null says that there is no limit.
 * Source: GenerationConfig.
 */
function impliedTopK(json: JsonObject): Pick<GenerationDefaults, "topK"> {
  return json.do_sample === true && json.top_k === undefined ? { topK: 50 } : {};
}

function samplerOf(reader: ConfigReader): Partial<GenerationDefaults> {
  const sampler: Partial<GenerationDefaults> = {};
  if (reader.has("temperature")) sampler.temperature = reader.number("temperature", 0, 100);
  if (reader.has("top_k")) sampler.topK = reader.number("top_k", 0, 1e9);
  if (reader.has("top_p")) sampler.topP = reader.number("top_p", 0, 1);
  if (reader.has("min_p")) sampler.minP = reader.number("min_p", 0, 1);
  if (reader.has("typical_p")) sampler.typicalP = reader.number("typical_p", 0, 1);
  if (reader.has("repetition_penalty")) {
    sampler.repeatPenalty = reader.number("repetition_penalty", 0, 100);
  }
  if (reader.has("max_new_tokens")) sampler.maxNewTokens = reader.count("max_new_tokens", 2 ** 31);
  return sampler;
}
