/** The tuner on a machine that is made up: what is slow, noisy, wrong or broken is decided here. */
import assert from "node:assert/strict";
import { kernelName, TERNARY_KERNELS, type TernaryKernel } from "../codegen/ternary_linear/spec.ts";
import { bytesPerToken, type LinearWork } from "../codegen/ternary_linear/work.ts";
import { randomOf } from "../codegen/random.ts";
import { CompileError } from "./compile.ts";
import { ProofError } from "./proof.ts";
import { type Candidate, median, notchOf, quantile } from "./race.ts";
import { BrokenKernelError, type Finding, type Lab, type Tuned, tuneKernels } from "./tuner.ts";

const KERNELS: readonly TernaryKernel[] = TERNARY_KERNELS.filter(({ isa }) => isa === "avx512")
  .slice(0, 4);
const NAMES = KERNELS.map(kernelName);
const WORKS: readonly LinearWork[] = [
  { n: 2560, k: 2560, perToken: 60, makesInput: true },
  { n: 640, k: 2560, perToken: 60, makesInput: false },
];

interface Machine {
  /** Nanoseconds of one weight for one token, by kernel: 0.01 unless said. */
  nsPerWeight?: Record<string, number>;
  /** The same for a batch. */
  promptNsPerWeight?: Record<string, number>;
  /** Each sample is longer by up to so much of itself. */
  noise?: number;
  /** All samples of a round are longer by up to so much: neighbours come and go. */
  roundNoise?: number;
  peak?: number;
  openMs?: number;
  broken?: Record<string, Error>;
  wrong?: readonly string[];
  /** Multiply-adds a cycle by a model of the CPU. */
  macsPerCycle?: Record<string, number>;
}

/** A machine whose clock goes on by what is done on it. */
class FakeLab implements Lab {
  readonly opened: string[] = [];
  readonly proved: string[] = [];
  samples = 0;
  rounds = 0;
  #ms = 0;
  #slowness = 1;
  readonly #deadlines: { atMs: number; controller: AbortController }[] = [];
  readonly #random = randomOf(1);

  constructor(private readonly machine: Machine) {}

  nowMs(): number {
    return this.#ms;
  }

  deadline(ms: number): AbortSignal {
    const controller = new AbortController();
    this.#deadlines.push({ atMs: this.#ms + ms, controller });
    return controller.signal;
  }

  #pass(ms: number): void {
    this.#ms += ms;
    for (const { atMs, controller } of this.#deadlines) if (this.#ms >= atMs) controller.abort();
  }

  pause(): Promise<void> {
    return Promise.resolve();
  }

  peakBytesPerSecond(): Promise<number> {
    this.rounds++;
    this.#slowness = 1 + this.#random() * (this.machine.roundNoise ?? 0);
    return Promise.resolve((this.machine.peak ?? 1e12) / this.#slowness);
  }

  open(kernel: TernaryKernel, signal: AbortSignal): Promise<Candidate> {
    const name = kernelName(kernel);
    this.opened.push(name);
    this.#pass(this.machine.openMs ?? 100);
    if (signal.aborted) return Promise.reject(signal.reason);
    const broken = this.machine.broken?.[name];
    if (broken !== undefined) return Promise.reject(broken);
    return Promise.resolve({
      timeNs: (work, tokens) => this.#time(name, work, tokens),
      prove: () => this.#prove(name),
      macsPerCycle: this.machine.macsPerCycle?.[name],
    });
  }

  #time(name: string, { n, k }: LinearWork, tokens: number): number {
    this.samples++;
    const { nsPerWeight = {}, promptNsPerWeight = {}, noise = 0 } = this.machine;
    const speeds = tokens === 1 ? nsPerWeight : promptNsPerWeight;
    const ns = (speeds[name] ?? 0.01) * n * k * tokens * (1 + noise * this.#random());
    this.#pass(ns / 1e6);
    return ns * this.#slowness;
  }

  #prove(name: string): void {
    this.proved.push(name);
    if (this.machine.wrong?.includes(name)) throw new ProofError(`${name} is wrong`);
  }
}

interface Limits {
  budgetMs?: number;
  signal?: AbortSignal;
  promptTokensPerToken?: number;
  kernels?: readonly TernaryKernel[];
  onProgress?: (message: string) => void;
}

function tune(lab: Lab, limits: Limits = {}): Promise<Tuned | null> {
  const { kernels = KERNELS, promptTokensPerToken = 0.5, budgetMs = 60_000, ...rest } = limits;
  return tuneKernels({ works: WORKS, kernels, promptTokensPerToken }, lab, { budgetMs, ...rest });
}

async function tuned(lab: Lab, limits: Limits = {}): Promise<Tuned> {
  const result = await tune(lab, limits);
  assert.ok(result !== null, "nothing was decided");
  return result;
}

function outcomes({ findings }: Tuned): Record<string, Finding["outcome"]> {
  return Object.fromEntries(findings.map(({ kernel, outcome }) => [kernel, outcome]));
}

Deno.test("tuner: the quickest kernel wins, with its evidence", async () => {
  const lab = new FakeLab({ nsPerWeight: { [NAMES[2]]: 0.008, [NAMES[3]]: 0.02 } });
  const result = await tuned(lab);
  assert.equal(kernelName(result.kernel), NAMES[2]);
  assert.deepEqual(outcomes(result), {
    [NAMES[0]]: "slower",
    [NAMES[1]]: "slower",
    [NAMES[2]]: "chosen",
    [NAMES[3]]: "slower",
  });
  const figures = result.findings[2].figures!;
  const weights = 60 * (2560 * 2560 + 640 * 2560);
  assert.ok(Math.abs(figures.decodeNs / (0.008 * weights) - 1) < 1e-9);
  assert.ok(Math.abs(figures.promptNs / (0.01 * weights) - 1) < 1e-9);
  assert.ok(Math.abs(figures.ratio / ((0.008 + 0.005) / 0.015) - 1) < 1e-9);
  assert.ok(Math.abs(figures.weightsPerSecond / 125e9 - 1) < 1e-9);
  const bytes = bytesPerToken(KERNELS[2].scheme.layout, WORKS);
  assert.ok(Math.abs(figures.peakFraction / (bytes / figures.decodeNs * 1e9 / 1e12) - 1) < 1e-9);
  assert.equal(figures.measurements.length, 2 * WORKS.length);
  assert.match(result.why, /^125\.0 G weights\/s, avx512-\S+ 100\.0 G weights\/s$/);
});

Deno.test("tuner: prompts count by their share", async () => {
  const machine = { promptNsPerWeight: { [NAMES[1]]: 0.004 }, nsPerWeight: { [NAMES[2]]: 0.0075 } };
  const few = await tuned(new FakeLab(machine), { promptTokensPerToken: 0.1 });
  assert.equal(kernelName(few.kernel), NAMES[2]);
  const many = await tuned(new FakeLab(machine), { promptTokensPerToken: 4 });
  assert.equal(kernelName(many.kernel), NAMES[1]);
});

Deno.test("tuner: noise that all kernels meet does not decide", async () => {
  for (const roundNoise of [0, 5]) {
    const lab = new FakeLab({ nsPerWeight: { [NAMES[3]]: 0.009 }, noise: 0.05, roundNoise });
    assert.equal(kernelName((await tuned(lab)).kernel), NAMES[3]);
  }
});

Deno.test("tuner: the default stays where another one is not 2 % better", async () => {
  const lab = new FakeLab({
    nsPerWeight: { [NAMES[1]]: 0.0099 },
    promptNsPerWeight: { [NAMES[1]]: 0.0099 },
  });
  const result = await tuned(lab);
  assert.equal(kernelName(result.kernel), NAMES[0]);
  assert.equal(outcomes(result)[NAMES[1]], "equal");
  assert.match(result.why, /^no other was 2 % better: /);
});

Deno.test("tuner: on a busy machine the default stays unless another one is much better", async () => {
  const better = { [NAMES[1]]: 0.0093 }, noise = 2;
  const kernels = KERNELS.slice(0, 2);
  const machine = { nsPerWeight: better, promptNsPerWeight: better };
  assert.equal(kernelName((await tuned(new FakeLab(machine), { kernels })).kernel), NAMES[1]);
  const busy = await tuned(new FakeLab({ ...machine, noise }), { kernels });
  assert.equal(kernelName(busy.kernel), NAMES[0]);
  const much = { [NAMES[1]]: 0.004 };
  const clear = new FakeLab({ nsPerWeight: much, promptNsPerWeight: much, noise });
  assert.equal(kernelName((await tuned(clear, { kernels })).kernel), NAMES[1]);
});

Deno.test("tuner: a clearly slower kernel is dropped early, ties are measured longer", async () => {
  const slow = new FakeLab({ nsPerWeight: { [NAMES[1]]: 1 }, noise: 0.01 });
  const { findings } = await tuned(slow, { kernels: KERNELS.slice(0, 2) });
  assert.equal(findings[1].figures?.rounds, 5);
  const clear = new FakeLab({ nsPerWeight: { [NAMES[1]]: 0.005 }, noise: 0.01 });
  const tie = new FakeLab({ noise: 3 });
  await tuned(clear, { kernels: KERNELS.slice(0, 2) });
  await tuned(tie, { kernels: KERNELS.slice(0, 2) });
  assert.ok(tie.rounds > clear.rounds, `${tie.rounds} and ${clear.rounds} rounds`);
});

Deno.test("tuner: a wrong kernel does not win, however quick", async () => {
  const lab = new FakeLab({ nsPerWeight: { [NAMES[1]]: 0.001 }, wrong: [NAMES[1]] });
  const result = await tuned(lab);
  assert.equal(kernelName(result.kernel), NAMES[0]);
  assert.equal(outcomes(result)[NAMES[1]], "rejected");
  assert.equal(result.findings[1].why, `${NAMES[1]} is wrong`);
  assert.deepEqual(lab.proved, [NAMES[1], NAMES[0]]);
});

Deno.test("tuner: kernels that crash or can't be compiled are told as rejected", async () => {
  const lab = new FakeLab({
    broken: {
      [NAMES[0]]: new BrokenKernelError("stops with signal 4"),
      [NAMES[2]]: new CompileError("Cannot compile\n  many lines", "/kept"),
    },
  });
  const result = await tuned(lab);
  assert.equal(kernelName(result.kernel), NAMES[1], "the next takes the default's place");
  assert.deepEqual(outcomes(result), {
    [NAMES[0]]: "rejected",
    [NAMES[1]]: "chosen",
    [NAMES[2]]: "rejected",
    [NAMES[3]]: "equal",
  });
  assert.equal(result.findings[2].why, "Cannot compile");
});

Deno.test("tuner: nothing is decided where nothing works, and other errors are not hidden", async () => {
  const broken = Object.fromEntries(NAMES.map((name) => [name, new BrokenKernelError("no")]));
  assert.equal(await tune(new FakeLab({ broken })), null);
  assert.equal(await tune(new FakeLab({ wrong: NAMES })), null);
  const lab = new FakeLab({ broken: { [NAMES[1]]: new TypeError("a mistake of ours") } });
  await assert.rejects(tune(lab), TypeError);
});

Deno.test("tuner: what can't win at the memory's peak is not even compiled", async () => {
  // Two bits a weight at this peak take longer than the default's measured token.
  const kernels = [KERNELS[1], KERNELS[0]];
  const rows32 = bytesPerToken(KERNELS[0].scheme.layout, WORKS);
  const score = 60 * (2560 * 2560 + 640 * 2560) * 0.015;
  const lab = new FakeLab({ peak: rows32 / (score * 1.1 / 1e9) });
  const result = await tuned(lab, { kernels });
  assert.deepEqual(outcomes(result), { [NAMES[1]]: "chosen", [NAMES[0]]: "pruned" });
  assert.match(
    result.findings[1].why,
    /^its weights take [\d.]+ ms a token at the memory's peak, /,
  );
  assert.deepEqual(lab.opened, [NAMES[1]]);
});

Deno.test("tuner: what can't win by the CPU's model is not measured", async () => {
  // A third of the default's speed is too little even if that is wrong by 30 %, two thirds may do.
  const estimates = { [NAMES[0]]: 90, [NAMES[1]]: 30, [NAMES[2]]: 60 };
  const lab = new FakeLab({ macsPerCycle: estimates, nsPerWeight: { [NAMES[1]]: 0.001 } });
  const result = await tuned(lab, { promptTokensPerToken: 4 });
  assert.deepEqual(outcomes(result), {
    [NAMES[0]]: "chosen",
    [NAMES[1]]: "pruned",
    [NAMES[2]]: "equal",
    [NAMES[3]]: "equal",
  });
  assert.match(result.findings[1].why, /, its prompts [\d.]+ ms by the CPU's model, the default /);
  assert.deepEqual(result.findings.map(({ macsPerCycle }) => macsPerCycle), [
    90,
    30,
    60,
    undefined,
  ]);
  const few = await tuned(new FakeLab({ macsPerCycle: estimates }));
  assert.equal(outcomes(few)[NAMES[1]], "equal", "few prompts do not decide");
});

Deno.test("tuner: without time for five rounds nothing is decided", async () => {
  const lab = new FakeLab({ nsPerWeight: Object.fromEntries(NAMES.map((name) => [name, 20])) });
  assert.equal(await tune(lab, { budgetMs: 1500 }), null);
});

Deno.test("tuner: what is not compiled in time is told as unmeasured", async () => {
  const lab = new FakeLab({ openMs: 300, nsPerWeight: { [NAMES[1]]: 0.005 } });
  const result = await tuned(lab, { budgetMs: 1000 });
  assert.equal(kernelName(result.kernel), NAMES[1]);
  assert.deepEqual(outcomes(result), {
    [NAMES[0]]: "slower",
    [NAMES[1]]: "chosen",
    [NAMES[2]]: "unmeasured",
    [NAMES[3]]: "unmeasured",
  });
  assert.equal(await tune(new FakeLab({ openMs: 900 }), { budgetMs: 1000 }), null);
});

Deno.test("tuner: a signal ends it at once, with its reason", async () => {
  const reason = new DOMException("Stopped", "AbortError");
  const before = AbortSignal.abort(reason);
  await assert.rejects(tune(new FakeLab({}), { signal: before }), reason);
  const controller = new AbortController();
  const onProgress = (message: string) => {
    if (message.endsWith("round 5")) controller.abort(reason);
  };
  const lab = new FakeLab({ noise: 0.5 });
  await assert.rejects(tune(lab, { signal: controller.signal, onProgress }), reason);
  assert.equal(lab.rounds, 1 + 4);
});

Deno.test("race: quantiles, and notches that shrink with more rounds", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(quantile([0, 10], 0.75), 7.5);
  const few = [1, 2, 3, 4], many = [...few, ...few, ...few, ...few];
  assert.ok(notchOf(many) < notchOf(few));
  assert.ok(Number.isNaN(median([])));
});
