import type { ModelSpec } from "../../codegen/model_spec.ts";
import { openCheckpoint } from "../checkpoint.ts";
import { openWeights } from "../checkpoint_weights.ts";
import { readModelConfig } from "../config.ts";
import { embeddedModelFolder } from "../embedded.ts";
import { packModel } from "../pack.ts";
import { shapeOf } from "../shapes.ts";
import { type Fill, fillSynthetic } from "../synthetic.ts";
import type { TernaryPacker } from "../ternary_packer.ts";

/** A model to measure: its shape, and how its weights get into memory. */
export interface BenchSource {
  name: string;
  spec: ModelSpec;
  fill(packer: TernaryPacker, write: Fill): Promise<void>;
}

/** @throws {RangeError} If the shape is unknown. */
export async function benchSource(
  { shape, model }: { shape?: string; model?: string },
): Promise<BenchSource> {
  if (shape !== undefined) return madeUpSource(shape, shapeOf(shape));
  const path = model ?? embeddedModelFolder();
  await using checkpoint = await openCheckpoint(path);
  const { name, spec } = await readModelConfig(checkpoint);
  return { name, spec, fill: (packer, write) => fillReal(path, packer, write) };
}

/** A model of made-up weights. */
export function madeUpSource(name: string, spec: ModelSpec): BenchSource {
  return { name, spec, fill: (packer, write) => fillSynthetic(spec, packer, write) };
}

async function fillReal(path: string, packer: TernaryPacker, write: Fill): Promise<void> {
  await using checkpoint = await openCheckpoint(path);
  const config = await readModelConfig(checkpoint);
  const weights = openWeights(config, checkpoint);
  await packModel(config.spec, weights, write, { packer });
}
