/** Packed models, for tests that compare what formats become. */
import { planOf, type Region } from "../codegen/plan.ts";
import { openCheckpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { type ModelConfig, readModelConfig } from "../runtime/config.ts";
import { packModel } from "../runtime/pack.ts";

export interface Packed {
  config: ModelConfig;
  bytes: Uint8Array;
}

/** The model as it is packed for the kernels. */
export async function packed(path: string, quantize?: "absmean"): Promise<Packed> {
  await using checkpoint = await openCheckpoint(path);
  const config = await readModelConfig(checkpoint, { quantize });
  const bytes = new Uint8Array(planOf(config.spec).totalBytes);
  await packModel(config.spec, openWeights(config, checkpoint), (part, at) => {
    bytes.set(part, at);
    return Promise.resolve();
  });
  return { config, bytes };
}

/** Regions of a packed model by name, those of layers as `3.q_codes`. */
export function regionsOf({ config: { spec }, bytes }: Packed): Map<string, Uint8Array> {
  const plan = planOf(spec);
  const regions = new Map<string, Uint8Array>();
  const add = (name: string, { bytes: size }: Region, at: number) =>
    regions.set(name, bytes.slice(at, at + size));
  for (const region of plan.globals) add(region.name, region, region.offset);
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const region of plan.layer) {
      const start = plan.layersOffset + layer * plan.layerBytes;
      add(`${layer}.${region.name}`, region, start + region.offset);
    }
  }
  return regions;
}
