/** Reads all that a checkpoint has, as loading and packing it do, without kernels. */
import { layerLinears, type ModelSpec } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import { loadChatTemplate } from "../runtime/chat_template.ts";
import type { Checkpoint } from "../runtime/checkpoint.ts";
import { openWeights } from "../runtime/checkpoint_weights.ts";
import { readModelConfig } from "../runtime/config.ts";
import { readGenerationDefaults } from "../runtime/generation_config.ts";
import { normsOf } from "../runtime/norms.ts";
import { ropeTables } from "../runtime/rope.ts";
import { checkTokenizerFits, readTokenizer } from "../runtime/tokenizer.ts";
import type { WeightSource } from "../runtime/weights.ts";

/** Steps that do not need each other, each of which may be refused. */
export const STEPS: readonly ((checkpoint: Checkpoint) => Promise<void>)[] = [
  readTensors,
  readModel,
  useTokenizer,
];

async function readTensors(checkpoint: Checkpoint): Promise<void> {
  for (const [name, { byteLength }] of checkpoint.tensors) {
    const bytes = await checkpoint.read(name);
    if (bytes.length !== byteLength) throw new Error(`${name}: ${bytes.length} of ${byteLength}`);
  }
}

async function readModel(checkpoint: Checkpoint): Promise<void> {
  const config = await readModelConfig(checkpoint);
  planOf(config.spec);
  ropeTables(config, Math.min(config.maxPositionEmbeddings, 16));
  await readGenerationDefaults(checkpoint.companions, config);
  await readWeights(config.spec, openWeights(config, checkpoint));
}

async function readWeights(spec: ModelSpec, weights: WeightSource): Promise<void> {
  await weights.finalNorm();
  for (const which of ["embedding", "head"] as const) {
    const isTernary = which === "head" ? spec.ternaryHead : spec.ternaryEmbedding;
    if (isTernary) await weights.ternaryRows!(which, 0, spec.vocabSize);
    else await weights[which]().readRows(0, spec.vocabSize);
  }
  for (let layer = 0; layer < spec.numHiddenLayers; layer++) {
    for (const name of layerLinears(spec)) await weights.linear(layer, name);
    for (const name of normsOf(spec)) await weights.norm(layer, name);
    for (const which of spec.qkNorm ? ["query", "key"] as const : []) {
      await weights.headNorm!(layer, which);
    }
    if (spec.experts === undefined) continue;
    const { numExperts } = spec.experts;
    await weights.experts!.router(layer).readRows(0, numExperts);
    for (let expert = 0; expert < numExperts; expert++) {
      for (const name of ["gate", "up", "down"] as const) {
        await weights.experts!.matrix(layer, expert, name);
      }
    }
  }
}

const TEXT = "ab <s>c<|im_end|>\u00e9";

async function useTokenizer({ companions }: Checkpoint): Promise<void> {
  const tokenizer = await readTokenizer(companions);
  checkTokenizerFits(tokenizer, 2 ** 24);
  tokenizer.decode(tokenizer.encode(TEXT, { parseSpecial: true }));
  await loadChatTemplate(companions);
}
