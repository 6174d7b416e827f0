/**
 * Files that lie beside a model's weights, under Hugging Face's names. A GGUF file holds the same
 * facts under keys of its own and gives them in this form, so that one reader serves both.
 */
import { join } from "node:path";
import { type Json, parseJson, readTextFile } from "./json.ts";
import { parseTokenizer, type TokenizerJson } from "./tokenizer_json.ts";

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
  json(name: Exclude<CompanionName, "tokenizer.json">): Promise<Json>;
  /** tokenizer.json, null when there is none. @throws {CheckpointError} If it is damaged. */
  tokenizer(): Promise<TokenizerJson | null>;
}

/** The files of a folder. @param read Gives a file's text, or null when there is none. */
export function folderCompanions(
  folder: string,
  read: (path: string) => Promise<string | null> = readTextFile,
): Companions {
  return textCompanions(folder, (name) => read(join(folder, name)));
}

/** Files whose texts are at hand. */
export function textCompanions(origin: string, text: Companions["text"]): Companions {
  return {
    origin,
    text,
    async json(name) {
      const found = await text(name);
      return found === null ? null : parseJson(found, name);
    },
    async tokenizer() {
      const found = await text("tokenizer.json");
      return found === null ? null : parseTokenizer(found, "tokenizer.json");
    },
  };
}
