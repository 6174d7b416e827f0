/** What drawing one token of a large vocabulary costs, by sampler: `deno bench -A bench/sampler_bench.ts`. */
import { createSampler } from "../runtime/sampler.ts";
import type { SamplerOptions } from "../runtime/types.ts";
import { RUNS } from "./machine.ts";

const VOCAB_SIZE = 128_256;
const LOGITS = Float32Array.from({ length: VOCAB_SIZE }, (_, i) => Math.sin(i * 12.9898) * 8);

/** As the two-stage head gives them: some hundred logits, -Infinity between them. */
const FEW_LOGITS = LOGITS.map((logit, i) => i % 641 === 0 ? logit : -Infinity);

const SAMPLERS: Record<string, SamplerOptions> = {
  greedy: { temperature: 0 },
  "top-k 40, top-p 0.95": { temperature: 0.8, topK: 40, topP: 0.95 },
  "top-p 0.9, min-p 0.01": { temperature: 0.8, topP: 0.9, minP: 0.01 },
  "typical-p 0.9": { temperature: 0.8, typicalP: 0.9 },
};

for (const [name, options] of Object.entries(SAMPLERS)) {
  const sampler = createSampler({ seed: 1, ...options }, VOCAB_SIZE);
  Deno.bench({ name, group: "sampler", baseline: name === "greedy", ...RUNS }, () => {
    sampler.sample(LOGITS, []);
  });
  Deno.bench({ name: `${name}, of a two-stage head`, group: "sampler" }, () => {
    sampler.sample(FEW_LOGITS, []);
  });
}
