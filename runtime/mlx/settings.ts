/** How MLX quantised a model's modules, by the section `quantization` of config.json. */
import { shown, UnsupportedModelError } from "../errors.ts";
import { isJsonObject, type Json, type JsonObject, parseJson } from "../json.ts";

/** Weights that share a scale and a bias, and bits of each weight. */
export interface Settings {
  groupSize: number;
  bits: number;
}

/** The section, and the copy of it that Hugging Face's hub shows. */
const SECTIONS = ["quantization", "quantization_config"] as const;

/** A config.json without what MLX adds to it: that says how words are read, which is done below it. */
export function withoutSections(configText: string): string {
  const config = configOf(configText);
  if (config === null) return configText;
  const kept = Object.entries(config).filter(([key]) => !SECTIONS.some((name) => name === key));
  return JSON.stringify(Object.fromEntries(kept));
}

/**
 * Settings by the name of a module: its own where it has some, else those of all.
 *
 * @throws {UnsupportedModelError} From the returned function, if there are none that are read.
 */
export function settingsOf(configText: string): (module: string) => Settings {
  const config = configOf(configText);
  const section = SECTIONS.map((name) => config?.[name]).find(isJsonObject) ?? {};
  return (module) => {
    const own = section[module];
    return checked(isJsonObject(own) ? { ...section, ...own } : section, module);
  };
}

function checked(section: JsonObject, module: string): Settings {
  const { group_size: groupSize, bits, mode = "affine" } = section;
  if (mode === "affine" && isCount(groupSize) && isCount(bits)) return { groupSize, bits };
  throw new UnsupportedModelError(
    `Cannot read ${
      shown(module)
    }: config.json must have "quantization" with MLX's mode "affine", ` +
      `its group_size and bits: current values are ${shown(mode)}, ${shown(groupSize)} and ` +
      `${shown(bits)}: get the model as MLX's 2 bits, or as a GGUF file`,
  );
}

function isCount(value: Json | undefined): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0 && Number(value) <= 65536;
}

/** Null where it is no object, of which whoever reads the whole of it says more. */
function configOf(text: string): JsonObject | null {
  const config = parseJson(text, "config.json");
  return isJsonObject(config) ? config : null;
}
