/**
 * How an embedding model makes one vector of the states of a text's tokens, as sentence-transformers
 * keeps it beside the weights: the steps in modules.json, and what is pooled in 1_Pooling/config.json.
 *
 * Source: sentence-transformers' Pooling.py and SentenceTransformer.py.
 */
import type { Companions } from "./companions.ts";
import { ConfigReader } from "./config_reader.ts";
import { CheckpointError, shown, shownList, UnsupportedModelError } from "./errors.ts";
import { isJsonObject, type Json } from "./json.ts";
import type { EmbeddingDefaults } from "./types.ts";

/**
 * What of the last layer's normed states is taken: the mean of all, the first token's or the last's; of each
 * feature the largest; the mean with the positions, from 1 on, as weights; the sum over the root of the
 * number of tokens.
 */
export const POOLINGS = [
  "mean",
  "cls",
  "last",
  "max",
  "weightedmean",
  "mean_sqrt_len_tokens",
] as const;
/** One of them. */
export type Pooling = (typeof POOLINGS)[number];

const MODULES_FILE = "modules.json";
const POOLING_FOLDER = "1_Pooling";
const POOLING_FILE = `${POOLING_FOLDER}/config.json`;

/** The files' names of what is pooled; older files have a flag for each. */
const MODES: Readonly<Record<string, Pooling>> = {
  mean: "mean",
  cls: "cls",
  lasttoken: "last",
  max: "max",
  weightedmean: "weightedmean",
  mean_sqrt_len_tokens: "mean_sqrt_len_tokens",
};
const FLAGS: Readonly<Record<string, string>> = {
  pooling_mode_cls_token: "cls",
  pooling_mode_mean_tokens: "mean",
  pooling_mode_max_tokens: "max",
  pooling_mode_mean_sqrt_len_tokens: "mean_sqrt_len_tokens",
  pooling_mode_weightedmean_tokens: "weightedmean",
  pooling_mode_lasttoken: "lasttoken",
};

/**
 * Null where the files are not there.
 *
 * @throws {CheckpointError} If they are damaged, or one of the two is missing.
 * @throws {UnsupportedModelError} If they ask for steps or a pooling that this version does not have.
 */
export async function readPooling(companions: Companions): Promise<EmbeddingDefaults | null> {
  const modules = await companions.json(MODULES_FILE);
  const config = await companions.json(POOLING_FILE);
  if (modules === null) {
    return config === null ? null : { pooling: poolingOf(config), normalize: true };
  }
  const normalize = checkModules(modules);
  if (config !== null) return { pooling: poolingOf(config), normalize };
  throw new CheckpointError(
    `Cannot use ${MODULES_FILE}: it names ${POOLING_FILE}, which is missing: download it as well`,
  );
}

/** Whether vectors are scaled to length 1 after pooling. */
function checkModules(json: Json): boolean {
  const malformed = (): never => {
    throw new CheckpointError(`Cannot use ${MODULES_FILE}: it must be a list of modules`);
  };
  if (!Array.isArray(json)) return malformed();
  const modules = json.map((module) => isJsonObject(module) ? module : malformed());
  const kinds = modules.map(({ type }) =>
    typeof type === "string" ? type.split(".").at(-1)! : malformed()
  );
  const steps = kinds.join(", ");
  if (steps !== "Transformer, Pooling" && steps !== "Transformer, Pooling, Normalize") {
    throw new UnsupportedModelError(
      "Cannot run this model: modules.json must be Transformer, Pooling and perhaps Normalize: " +
        `current value is ${shownList(kinds, 8)}`,
    );
  }
  const { path } = modules[1];
  if (path !== POOLING_FOLDER) {
    throw new UnsupportedModelError(
      `Cannot run this model: modules.json must have its pooling in ${POOLING_FOLDER}: ` +
        `current value is ${shown(path)}: rename the folder`,
    );
  }
  return kinds.includes("Normalize");
}

function poolingOf(json: Json): Pooling {
  if (!isJsonObject(json)) {
    throw new CheckpointError(`Cannot use ${POOLING_FILE}: it must be a JSON object`);
  }
  const names = namesOf(new ConfigReader(json, POOLING_FILE));
  const pooling = names.length === 1 && Object.hasOwn(MODES, names[0]) ? MODES[names[0]] : null;
  if (pooling !== null) return pooling;
  throw new UnsupportedModelError(
    `Cannot run this model: ${POOLING_FILE} must ask for one of ${
      Object.keys(MODES).join(", ")
    }: ` +
      `current value is ${shownList(names) || "none"}: to choose another, give ` +
      `${POOLINGS.join(", ")} by hand and move ${MODULES_FILE} and ${POOLING_FOLDER} away`,
  );
}

/** A mean is what the class does where a file of flags leaves it out. */
function namesOf(config: ConfigReader): string[] {
  if (Array.isArray(config.get("pooling_mode"))) return config.strings("pooling_mode");
  const mode = config.string("pooling_mode");
  if (mode !== null) return [mode];
  return Object.entries(FLAGS)
    .filter(([flag, name]) => config.flag(flag, name === "mean"))
    .map(([, name]) => name);
}
