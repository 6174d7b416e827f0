import type { ConfigReader } from "../config_reader.ts";

const LAYER_TYPES = ["sliding_attention", "full_attention"] as const;

/**
 * Which layers slide: by layer_types, else every `period`th one sees all positions.
 *
 * @throws {CheckpointError} If layer_types is not of that many layers, or of other kinds.
 */
export function slidingLayers(config: ConfigReader, layers: number, period: number): boolean[] {
  const types = config.strings("layer_types");
  if (!config.has("layer_types")) {
    return Array.from({ length: layers }, (_, layer) => (layer + 1) % period !== 0);
  }
  if (types.length !== layers) {
    config.fail("layer_types", `a list of ${layers}, one a layer`, `a list of ${types.length}`);
  }
  const other = types.find((type) => !LAYER_TYPES.some((known) => known === type));
  if (other !== undefined) config.fail("layer_types", `of ${LAYER_TYPES.join(", ")}`, other);
  return types.map((type) => type === "sliding_attention");
}
