/**
 * Files that lie beside a model's weights, under Hugging Face's names. A GGUF file holds the same
 * facts under keys of its own and gives them in this form, so that one reader serves both.
 */
import { join } from "node:path";
import { CheckpointError, reasonOf } from "./errors.ts";
import { type Json, parseJson, readTextFile } from "./json.ts";

export type CompanionName =
  | "tokenizer.json"
  | "tokenizer_config.json"
  | "special_tokens_map.json"
  | "generation_config.json"
  | "chat_template.jinja"
  | "tokenizer.model"
  | "modules.json"
  | "1_Pooling/config.json"
  | "config_sentence_transformers.json";

export interface Companions {
  /** For errors: the folder or file that they come from. */
  readonly origin: string;
  /** Null when there is none. @throws {CheckpointError} If it is damaged. */
  text(name: CompanionName): Promise<string | null>;
  /** Parsed, null when there is none. @throws {CheckpointError} If it is damaged. */
  json(name: CompanionName): Promise<Json>;
}

/** The files of a folder. @param read Gives a file's text, or null when there is none. */
export function folderCompanions(
  folder: string,
  read: (path: string) => Promise<string | null> = readTextFile,
): Companions {
  const text = (name: CompanionName) => read(join(folder, name));
  return {
    origin: folder,
    text,
    async json(name) {
      const found = await text(name);
      if (found === null) return null;
      return name === "tokenizer.json" ? parseQuickly(found, name) : parseJson(found, name);
    },
  };
}

/** A tokenizer.json has a hundred thousand entries, so for it the engine's own parser is used. */
export function parseQuickly(text: string, what: string): Json {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`Cannot read ${what} as it is not valid JSON: ${reasonOf(error)}`);
  }
}
