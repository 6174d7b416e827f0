import type { ModelSpec } from "../../codegen/model_spec.ts";
import { type Checkpoint, openCheckpoint } from "../checkpoint.ts";
import { openWeights } from "../checkpoint_weights.ts";
import { readModelConfig } from "../config.ts";
import { embeddedModelFolder } from "../embedded.ts";
import type { GgufOptions } from "../gguf/checkpoint.ts";
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
  { shape, model, i2sLayout }: { shape?: string; model?: string } & GgufOptions,
): Promise<BenchSource> {
  if (shape !== undefined) return madeUpSource(shape, shapeOf(shape));
  const path = model ?? embeddedModelFolder();
  const open = () => openCheckpoint(path, { i2sLayout });
  await using checkpoint = await open();
  const { name, spec } = await readModelConfig(checkpoint);
  return { name, spec, fill: (packer, write) => fillReal(open, packer, write) };
}

/** A model of made-up weights. */
export function madeUpSource(name: string, spec: ModelSpec): BenchSource {
  return { name, spec, fill: (packer, write) => fillSynthetic(spec, packer, write) };
}

async function fillReal(
  open: () => Promise<Checkpoint>,
  packer: TernaryPacker,
  write: Fill,
): Promise<void> {
  await using checkpoint = await open();
  const config = await readModelConfig(checkpoint);
  const weights = openWeights(config, checkpoint);
  await packModel(config.spec, weights, write, { packer });
}
