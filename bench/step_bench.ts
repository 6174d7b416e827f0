/**
 * Attention and head by themselves: steps of models that have next to nothing else.
 *
 *     deno bench -A bench/step_bench.ts
 *
 * Time is that of one step by all threads, the call included (some 40 us).
 */
import type { ModelSpec } from "../codegen/model_spec.ts";
import { BenchSession } from "../runtime/bench/session.ts";
import { madeUpSource } from "../runtime/bench/source.ts";
import { shapeOf } from "../runtime/shapes.ts";
import { IS_SMALL, RUNS, THREADS } from "./machine.ts";

const WHOLE = shapeOf("bitnet-2b-4t");

/** One layer with all of the heads, but few features. */
const ATTENTION: ModelSpec = {
  ...WHOLE,
  hiddenSize: 64,
  intermediateSize: 64,
  numHiddenLayers: 1,
  vocabSize: 64,
};

/** One narrow layer before the whole head. */
const HEAD: ModelSpec = {
  ...WHOLE,
  ...(IS_SMALL ? { hiddenSize: 64, vocabSize: 1000 } : {}),
  intermediateSize: 64,
  numHiddenLayers: 1,
  numAttentionHeads: 1,
  numKeyValueHeads: 1,
  headDim: 16,
};

const CONTEXTS = IS_SMALL ? [16, 40] : [128, 1024, 4096];
const SEQUENCES = IS_SMALL ? [1, 2] : [1, 2, 4, 8];

const sessions: BenchSession[] = [];

// Deno closes libraries at the end of a process, where threads may still be waiting in them.
globalThis.addEventListener("unload", () => {
  for (const { executor } of sessions) executor.team.destroy();
});

/** Made when it is first needed; memory goes with the process. */
function lazily(
  spec: ModelSpec,
  promptTokens: number,
  batch: number[],
): () => Promise<BenchSession> {
  let session: Promise<BenchSession> | undefined;
  return () => {
    session ??= open(spec, promptTokens, batch);
    return session;
  };
}

async function open(spec: ModelSpec, promptTokens: number, batch: number[]): Promise<BenchSession> {
  const options = { promptTokens, genTokens: 1, repeat: 1, threads: THREADS, batch };
  const session = await BenchSession.open(options, madeUpSource("made up", spec));
  await session.prefillAll(promptTokens);
  sessions.push(session);
  return session;
}

for (const context of CONTEXTS) {
  const group = "attention of one layer, one token";
  const session = lazily(ATTENTION, context, []);
  const name = `context of ${context}`;
  Deno.bench({ name, group, baseline: context === CONTEXTS[0], ...RUNS }, async (b) => {
    const ready = await session();
    b.start();
    await ready.decode(context);
    b.end();
  });
}

const headSession = lazily(HEAD, 1, SEQUENCES);
for (const sequences of SEQUENCES) {
  const name = `${sequences} row${sequences > 1 ? "s" : ""} of logits`;
  Deno.bench({ name, group: "head", baseline: sequences === 1, ...RUNS }, async (b) => {
    const ready = await headSession();
    b.start();
    await ready.decode(0, sequences);
    b.end();
  });
}
