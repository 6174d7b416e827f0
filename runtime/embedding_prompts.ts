/**
 * What stands before texts to embed: an embedding model may have been trained with a prompt for each kind
 * of text, which sentence-transformers keeps in config_sentence_transformers.json.
 *
 * Source: sentence-transformers' SentenceTransformer.py (encode, _load_sbert_model) and Pooling.py.
 */
import type { Companions } from "./companions.ts";
import { ConfigReader } from "./config_reader.ts";
import { CheckpointError, shown, shownList } from "./errors.ts";
import { isJsonObject, type Json } from "./json.ts";
import type { EmbeddingPrompts, EmbedOptions } from "./types.ts";

const PROMPTS_FILE = "config_sentence_transformers.json";
const POOLING_FILE = "1_Pooling/config.json";

export const NO_PROMPTS: EmbeddingPrompts = { texts: {}, defaultName: null, arePooled: true };

/** @throws {CheckpointError} If the files are malformed, or the default prompt is none of the prompts. */
export async function readPrompts(companions: Companions): Promise<EmbeddingPrompts> {
  const file = readerOf(await companions.json(PROMPTS_FILE), PROMPTS_FILE);
  if (file === null) return NO_PROMPTS;
  const texts = textsOf(file);
  const defaultName = file.string("default_prompt_name");
  if (defaultName !== null && !Object.hasOwn(texts, defaultName)) {
    file.fail("default_prompt_name", `one of prompts, ${namesOf(texts)}`, defaultName);
  }
  const pooling = readerOf(await companions.json(POOLING_FILE), POOLING_FILE);
  return { texts, defaultName, arePooled: pooling?.flag("include_prompt", true) ?? true };
}

function readerOf(json: Json, name: string): ConfigReader | null {
  if (json === null) return null;
  if (isJsonObject(json)) return new ConfigReader(json, name);
  throw new CheckpointError(`Cannot use ${name}: it must be a JSON object`);
}

function textsOf(file: ConfigReader): Record<string, string> {
  const prompts = file.get("prompts") ?? {};
  const entries = isJsonObject(prompts) ? Object.entries(prompts) : [];
  if (!isJsonObject(prompts) || !entries.every(([, text]) => typeof text === "string")) {
    return file.fail("prompts", "an object of texts", prompts);
  }
  return Object.fromEntries(entries) as Record<string, string>;
}

function namesOf(texts: Readonly<Record<string, string>>): string {
  return shownList(Object.keys(texts), 8) || "of which there are none";
}

/**
 * The prompt before a text: the caller's own, the named one, or the model's default.
 *
 * @throws {RangeError} If the model has none of that name.
 */
export function promptOf(
  { texts, defaultName }: EmbeddingPrompts,
  { prompt, promptName }: Pick<EmbedOptions, "prompt" | "promptName">,
): string {
  if (prompt !== undefined) return prompt;
  const name = promptName ?? defaultName;
  if (name === null) return "";
  if (Object.hasOwn(texts, name)) return texts[name];
  throw new RangeError(
    `Cannot embed with the prompt ${shown(name)} as it is none of the model's, ${
      namesOf(texts)
    }: ` +
      "give one of these, or the prompt itself",
  );
}
