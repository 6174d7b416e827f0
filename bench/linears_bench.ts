/**
 * Every ternary kernel of this CPU, by shape, number of tokens and where its weights come from:
 *
 *     deno bench -A bench/linears_bench.ts --filter "6912 x 2560, 1 token, memory"
 *
 * Time is that of one linear by all threads. The fewest bits a weight win from memory, the fewest
 * instructions in the caches.
 */
import type { Shape } from "../codegen/ternary_linear/scheme.ts";
import { kernelName, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { bestKernel } from "../kernels/choose.ts";
import { NativeTeam } from "../kernels/native_model.ts";
import { type LinearTimer, LinearTimers, STREAMED_BYTES } from "../kernels/timing.ts";
import { IS_SMALL, KERNELS, RUNS, THREADS, ZIG } from "./machine.ts";

/** Of BitNet b1.58 2B4T: gate and up, and q and o. */
const SHAPES: readonly Shape[] = IS_SMALL
  ? [{ n: 161, k: 100 }]
  : [{ n: 6912, k: 2560 }, { n: 2560, k: 2560 }];

/** A decoded token, a small batch, and what prefill has many of. */
const TOKENS = IS_SMALL ? [1, 3] : [1, 8, 64];

interface Case {
  kernel: TernaryKernel;
  shape: Shape;
  tokens: number;
  /** Bytes of weights, read in turn. */
  bytes: number;
}

const libraries = new Map<TernaryKernel, LinearTimers>();
for (const kernel of KERNELS) {
  libraries.set(kernel, await LinearTimers.open(ZIG, kernel, SHAPES));
}

/** The case that runs, as all of them together would take gigabytes. */
let prepared: { of: Case; timer: LinearTimer; release: () => void } | undefined;

// Deno closes libraries at the end of a process, where the team's threads may still be waiting in one.
globalThis.addEventListener("unload", () => prepared?.release());

function timerOf(wanted: Case): LinearTimer {
  if (prepared?.of === wanted) return prepared.timer;
  prepared?.release();
  const timers = libraries.get(wanted.kernel)!;
  const team = new NativeTeam(timers.library, THREADS);
  const weights = timers.weights(wanted.shape, wanted.bytes);
  const timer = timers.timer(team, weights, wanted.tokens);
  const release = () => {
    timer[Symbol.dispose]();
    weights.release();
    team.destroy();
  };
  prepared = { of: wanted, timer, release };
  return timer;
}

function register(group: string, wanted: Case, baseline: boolean): void {
  // Names are what --filter looks at.
  const name = `${kernelName(wanted.kernel)}, ${group}`;
  Deno.bench({ name, group, baseline, ...RUNS }, (b) => {
    const timer = timerOf(wanted);
    b.start();
    timer.run(1, true);
    b.end();
  });
}

/** What runs where nothing was asked for. */
const BASELINE = await bestKernel();

/** Where weights are read from, and how many bytes of them there are. */
const CACHES = { place: "caches", bytes: 1 };
const MEMORY = { place: "memory", bytes: IS_SMALL ? 1 : STREAMED_BYTES };

for (const shape of SHAPES) {
  for (const tokens of TOKENS) {
    // Many tokens need so much arithmetic that memory does not matter.
    for (const { place, bytes } of tokens === 1 ? [CACHES, MEMORY] : [CACHES]) {
      const noun = tokens === 1 ? "token" : "tokens";
      const group = `${shape.n} x ${shape.k}, ${tokens} ${noun}, ${place}`;
      for (const kernel of KERNELS) {
        register(group, { kernel, shape, tokens, bytes }, kernel === BASELINE);
      }
    }
  }
}
