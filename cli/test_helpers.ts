/** Runs commands in this process, with a fake model and captured streams. */
import type { ConvertReport } from "../runtime/convert/convert.ts";
import type {
  BenchReport,
  DoctorReport,
  InspectReport,
  MachineReport,
  TuneReport,
} from "../runtime/reports.ts";
import type { LocalModel, ModelRemoval } from "../runtime/hub/models.ts";
import type { PullReport } from "../runtime/hub/pull.ts";
import type { LoadOptions } from "../runtime/types.ts";
import type { Engine } from "./engine.ts";
import { FakeModel, type FakeModelOptions } from "./fake_model.ts";
import { BrokenPipeError, type Io, type Output } from "./io.ts";
import { END, INTERRUPT, type LineReader, pipedLines } from "./line_reader.ts";
import { main } from "./main.ts";

export interface Scene extends FakeModelOptions {
  stdin?: string[];
  /** Lines typed at a terminal; null is Ctrl-C. The end is Ctrl-D. */
  typed?: (string | null)[];
  isTerminal?: boolean;
  hasColour?: boolean;
  environment?: Record<string, string>;
  /** Characters after which standard output breaks, as with `head`. */
  stdoutLimit?: number;
  /** Ctrl-C comes once standard output has this. */
  interruptAfter?: string;
  /** Ctrl-C comes this long after somebody waits for it. */
  interruptAfterMs?: number;
  engine?: Partial<Engine>;
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
  models: FakeModel[];
  loads: { path: string | undefined; options: LoadOptions }[];
}

export async function run(args: string[], scene: Scene = {}): Promise<Outcome> {
  const { engine, models, loads } = fakeEngine(scene);
  const io = new FakeIo(scene);
  const code = await main(args, io, { ...engine, ...scene.engine });
  return { code, stdout: io.stdout.text, stderr: io.stderr.text, models, loads };
}

class TextOutput implements Output {
  text = "";
  readonly columns = 60;
  readonly isTerminal: boolean;
  readonly hasColour: boolean;

  constructor(
    { isTerminal = false, hasColour = false }: Scene,
    private readonly onWrite: (text: string) => void = () => {},
  ) {
    this.isTerminal = isTerminal;
    this.hasColour = hasColour;
  }

  write(text: string): void {
    this.text += text;
    this.onWrite(this.text);
  }

  writeSoon(text: string): Promise<void> {
    this.write(text);
    return Promise.resolve();
  }
}

class FakeIo implements Io {
  readonly stdin;
  readonly stdout: TextOutput;
  readonly stderr: TextOutput;
  readonly #listeners = new Set<() => void>();
  #isInterrupted = false;

  constructor(private readonly scene: Scene) {
    const { stdin = [], isTerminal = false } = scene;
    this.stdin = {
      isTerminal,
      async *chunks() {
        yield* stdin;
      },
    };
    this.stdout = new TextOutput(scene, (text) => this.#afterWrite(text));
    this.stderr = new TextOutput(scene);
  }

  openLines(): LineReader {
    const typed = [...this.scene.typed ?? []];
    if (this.scene.typed === undefined) return pipedLines(this.stdin);
    return {
      read() {
        const line = typed.shift();
        return Promise.resolve(line === undefined ? END : line ?? INTERRUPT);
      },
      close() {},
    };
  }

  environment(name: string): string | null {
    return this.scene.environment?.[name] ?? null;
  }

  onInterrupt(listener: () => void): () => void {
    this.#listeners.add(listener);
    if (this.scene.interruptAfterMs !== undefined) {
      setTimeout(listener, this.scene.interruptAfterMs);
    }
    return () => this.#listeners.delete(listener);
  }

  onTerminate(): () => void {
    return () => {};
  }

  exit(code: number): void {
    throw new Error(`exit(${code}) was called`);
  }

  #afterWrite(text: string): void {
    const { stdoutLimit = Infinity, interruptAfter } = this.scene;
    if (text.length > stdoutLimit) throw new BrokenPipeError("Standard output was closed");
    if (interruptAfter === undefined || this.#isInterrupted) return;
    if (!text.includes(interruptAfter)) return;
    this.#isInterrupted = true;
    for (const listener of this.#listeners) listener();
  }
}

export const BENCH_REPORT: BenchReport = {
  shape: "bitnet-2b-4t",
  threads: 2,
  cpu: "Some CPU",
  head: "full",
  kvType: "int8",
  prefill: {
    tokensPerSecond: 123.45,
    stdev: 1.2,
    promptTokens: 128,
    ternaryMacsPerSecondPerThread: 117e9,
  },
  decode: {
    tokensPerSecond: 45.6,
    stdev: 0.3,
    genTokens: 32,
    contextTokens: 4096,
    weightBytesPerToken: 417e6,
    kvBytesPerToken: 162e6,
    bytesPerSecond: 19e9,
    fromStart: {
      tokensPerSecond: 60,
      keptFraction: 0.76,
      kvBytesPerSecond: 28e9,
      kvRooflineFraction: 0.9032,
    },
  },
  memory: {
    peakReadBytesPerSecond: 31e9,
    bestReadBytesPerSecond: 33e9,
    rooflineFraction: 0.613,
    weightBytes: 1.1e9,
    peakRssBytes: 1.2e9,
  },
  kernels: [{
    op: "ternary_linear",
    n: 2560,
    k: 2560,
    scheme: "lookup9",
    isa: "avx512",
    bitsPerWeight: 1.78,
    reason: "default: not tuned",
  }],
};

const FIGURES = {
  rounds: 7,
  decodeNs: 15.6e6,
  promptNs: 5.3e6,
  ratio: 0.878,
  spread: 0.012,
  weightsPerSecond: 133.6e9,
  peakFraction: 0.87,
  measurements: [{ n: 2560, k: 2560, tokens: 1, medianNs: 56_800, spread: 0.05 }],
};

export const TUNE_REPORT: TuneReport = {
  magic: "trilith-tuning-1",
  key: "0123456789abcdef0123456789abcdef",
  version: "aa",
  model: "bitnet-2b-4t",
  cpu: { arch: "x86_64", modelName: "Some CPU", features: ["avx2"] },
  threads: 2,
  works: [{ n: 2560, k: 2560, perToken: 60, makesInput: true }],
  zigVersion: "0.17.1",
  tunedAt: "2026-01-02T03:04:05.678Z",
  seconds: 4.2,
  promptTokensPerToken: 0.5,
  kernel: "avx2-multiply",
  why: "133.6 G weights/s, avx2-other 125.5 G weights/s",
  peakReadBytesPerSecond: 34e9,
  findings: [
    {
      kernel: "avx2-multiply",
      layout: "rows32",
      bitsPerWeight: 2,
      outcome: "chosen",
      why: "133.6 G weights/s, avx2-other 125.5 G weights/s",
      figures: FIGURES,
    },
    {
      kernel: "avx2-other",
      layout: "rows32",
      bitsPerWeight: 2,
      outcome: "slower",
      why: "+13.9 % time a token with its share of a prompt",
      figures: { ...FIGURES, ratio: 1, spread: 0 },
    },
    {
      kernel: "avx2-broken",
      layout: "rows32",
      bitsPerWeight: 2,
      outcome: "rejected",
      why: "avx2-broken stops with signal 4",
    },
  ],
  threadTimes: [
    { threads: 1, decodeNs: 15.7e6, promptNs: 5.4e6 },
    { threads: 2, decodeNs: 15.6e6, promptNs: 5.3e6 },
  ],
  advisedThreads: 1,
  batches: [{ n: 2560, k: 2560, tokens: 4, medianNs: 60_000, spread: 0.03 }],
  path: "/tunings/0123456789abcdef0123456789abcdef-2.json",
};

export const MACHINE_REPORT: MachineReport = {
  versions: { trilith: "1.2.3", zig: "0.17.1", runtime: "Deno 2" },
  cpu: "Some CPU",
  isa: "avx512",
  command: "trilith bench report",
  shape: "bitnet-2b-4t",
  peaks: [],
  schemes: [],
  shapes: [],
  runs: [BENCH_REPORT],
};

export const DOCTOR_REPORT: DoctorReport = {
  checks: [
    { subject: "CPU", status: "ok", found: "8 cores with AVX-512" },
    { subject: "compiler", status: "problem", found: "no Zig", advice: "pip install ziglang" },
  ],
  facts: { cores: 8 },
};

export const INSPECT_REPORT: InspectReport = {
  name: "story",
  path: "models/story",
  architecture: "BitNetForCausalLM",
  quantize: null,
  parameters: 1_234_567,
  shapes: { hiddenSize: 128, biases: [] },
  tensorTypes: [{ type: "U8", tensors: 7, weights: 1_000_000, bytes: 250_000 }],
  bitsPerWeight: 1.78,
  tokenizer: { type: "BPE", vocabSize: 2048, bosToken: "<bos>", eosTokens: ["<eos>"] },
  chatTemplate: null,
  embedding: null,
  contextSize: 512,
  memory: {
    contextSize: 512,
    kvType: "f32",
    threads: 2,
    weightBytes: 250_000,
    unreadBytes: 0,
    kvBytes: 524_288,
    bufferBytes: 100_000,
    runtimeBytes: 90_000_000,
    totalBytes: 90_874_288,
    kvBytesPerTokenByType: { f32: 1024, f16: 512, int8: 288 },
  },
};

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

export const PULL_REPORT: PullReport = {
  model: "some/model",
  repo: "some/model",
  revision: "main",
  commit: COMMIT,
  path: "/hub/models--some--model/snapshots/0123",
  files: [{ path: "config.json", bytes: 12, hash: "ab", state: "fetched" }],
  bytes: 12,
  neededBytes: 12,
  seconds: 0.5,
};

export const LOCAL_MODEL: LocalModel = {
  name: "some/model",
  repo: "some/model",
  commit: COMMIT,
  revisions: ["main"],
  path: "/hub/models--some--model/snapshots/0123",
  format: "safetensors",
  bytes: 1_180_000_000,
  runs: true,
  note: "bitnet, ternary",
};

export const MODEL_REMOVAL: ModelRemoval = {
  name: "some/model",
  repo: "some/model",
  commits: [COMMIT],
  files: ["config.json", "model.safetensors"],
  bytes: 1_180_000_000,
  isWholeRepo: true,
  origins: [],
  packed: [{ path: "/cache/models/a.packed", bytes: 1_000_000_000 }],
};

export const CONVERT_REPORT: ConvertReport = {
  source: "story",
  destination: "story.gguf",
  format: "gguf",
  type: "tq2_0",
  files: [{ path: "/models/story.gguf", bytes: 2_500_000 }],
  bytes: 2_500_000,
  resumedBytes: 0,
  verified: { matrices: 7, floats: 3 },
  quantization: null,
  perplexity: null,
  seconds: 1.5,
};

export function fakeEngine(scene: FakeModelOptions) {
  const models: FakeModel[] = [];
  const loads: Outcome["loads"] = [];
  const engine: Engine = {
    loadModel(path, options) {
      loads.push({ path, options });
      models.push(new FakeModel(scene, options));
      return Promise.resolve(models.at(-1)!);
    },
    loadTokenizer: () => Promise.resolve(new FakeModel(scene, {}).tokenizer),
    runBench: () => Promise.resolve(BENCH_REPORT),
    reportMachine: () => Promise.resolve(MACHINE_REPORT),
    listKernels: () =>
      Promise.resolve([{
        type: "library",
        id: "0123456789abcdef0123",
        path: "/kernels/0123456789abcdef0123.so",
        libraryBytes: 70_000,
        compiledAt: "2026-01-02T03:04:05Z",
        isa: "avx2",
      }]),
    kernelSources: ({ assembly }) =>
      Promise.resolve([{
        name: "step",
        isa: "avx2",
        source: "// zig",
        ...(assembly ? { assembly: "vpdpbusd" } : {}),
      }]),
    clearKernels: () =>
      Promise.resolve({ directory: "/kernels", removed: 3, bytes: 210_000, removedTunings: 0 }),
    listTunings: () => Promise.resolve([]),
    tuneModel: () => Promise.resolve(TUNE_REPORT),
    doctorReport: () => Promise.resolve(DOCTOR_REPORT),
    inspectModel: () => Promise.resolve(INSPECT_REPORT),
    locateModel: (text) => Promise.resolve(text),
    pullModel: () => Promise.resolve(PULL_REPORT),
    listModels: () => Promise.resolve([LOCAL_MODEL]),
    remoteModels: () => Promise.resolve([]),
    modelRemoval: () => Promise.resolve(MODEL_REMOVAL),
    removeModels: () => Promise.resolve(),
    convertModel: () => Promise.resolve(CONVERT_REPORT),
  };
  return { engine, models, loads };
}
