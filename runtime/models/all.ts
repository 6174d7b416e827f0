/** The one list of architectures: a file each, and a row here. */
import type { ConfigReader } from "../config_reader.ts";
import { shown, UnsupportedModelError } from "../errors.ts";
import { type Architecture, MODEL_TYPES } from "./architecture.ts";
import { BITNET } from "./bitnet.ts";
import { GEMMA3 } from "./gemma3.ts";
import { LLAMA } from "./llama.ts";
import { MAPLE } from "./maple.ts";
import { MINICPM } from "./minicpm.ts";
import { QWEN3 } from "./qwen3.ts";

export const ARCHITECTURES: readonly Architecture[] = [
  BITNET,
  LLAMA,
  QWEN3,
  GEMMA3,
  MINICPM,
  MAPLE,
];

/** @throws {UnsupportedModelError} If no architecture here is that of the config. */
export function architectureOf(config: ConfigReader): Architecture {
  const modelType = config.string("model_type");
  const classes = config.strings("architectures");
  const found =
    ARCHITECTURES.find(({ classNames }) => classes.some((name) => classNames?.test(name))) ??
      ARCHITECTURES.find((each) => [each.modelType, ...each.aliases ?? []].includes(modelType!));
  if (found !== undefined) return found;
  throw new UnsupportedModelError(
    `Cannot run a model of type ${shown(modelType)}: this version runs ${MODEL_TYPES.join(", ")}`,
  );
}
