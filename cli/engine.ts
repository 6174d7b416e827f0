import { embeddedModelFolder } from "../runtime/embedded.ts";
import type { ConvertOptions, ConvertReport } from "../runtime/convert/convert.ts";
import type {
  BenchOptions,
  BenchReport,
  CachedKernel,
  ClearedKernels,
  DoctorReport,
  InspectReport,
  KernelSource,
  KernelSourceOptions,
  KnownTuning,
  MachineReport,
  MachineReportOptions,
  ReportFiles,
  TuneOptions,
  TuneReport,
} from "../runtime/reports.ts";
import type { RemoteModel } from "../runtime/hub/remote_models.ts";
import type { LocalModel, ModelRemoval } from "../runtime/hub/models.ts";
import type { PullOptions, PullReport } from "../runtime/hub/pull.ts";
import type { MemoryOptions } from "../runtime/memory_needed.ts";
import type { LoadOptions, Model, Tokenizer } from "../runtime/types.ts";

/** What the commands need of the layers below. A missing path is the embedded story model. */
export interface Engine {
  loadModel(path: string | undefined, options: LoadOptions): Promise<Model>;
  loadTokenizer(path: string | undefined): Promise<Tokenizer>;
  runBench(options: BenchOptions): Promise<BenchReport>;
  reportMachine(
    files: ReportFiles,
    options: Omit<MachineReportOptions, "peers">,
  ): Promise<MachineReport>;
  tuneModel(options: TuneOptions): Promise<TuneReport>;
  listKernels(): Promise<CachedKernel[]>;
  listTunings(): Promise<KnownTuning[]>;
  kernelSources(options: KernelSourceOptions): Promise<KernelSource[]>;
  clearKernels(options: { tunings?: boolean }): Promise<ClearedKernels>;
  doctorReport(): Promise<DoctorReport>;
  inspectModel(path: string | undefined, options: MemoryOptions): Promise<InspectReport>;
  /** The path of a model in the hub's cache; what is a path stays one. */
  locateModel(text: string): Promise<string>;
  pullModel(text: string, options: PullOptions): Promise<PullReport>;
  listModels(): Promise<LocalModel[]>;
  remoteModels(): Promise<RemoteModel[]>;
  modelRemoval(text: string): Promise<ModelRemoval>;
  removeModels(removal: ModelRemoval): Promise<void>;
  convertModel(
    source: string,
    destination: string,
    options: ConvertOptions,
  ): Promise<ConvertReport>;
}

/** The real engine. Each function loads its modules when it is called, so that `--help` is quick. */
export const engine: Engine = {
  async loadModel(path, options) {
    return (await import("../runtime/mod.ts")).loadModel(path, options);
  },
  async loadTokenizer(path) {
    const { loadTokenizer } = await import("../runtime/tokenizer.ts");
    return loadTokenizer(path ?? embeddedModelFolder());
  },
  async runBench(options) {
    return (await import("../runtime/bench.ts")).runBench(options);
  },
  async reportMachine(files, options) {
    return (await import("../runtime/machine_report.ts")).reportMachine(files, options);
  },
  async tuneModel(options) {
    return (await import("../runtime/mod.ts")).tuneModel(options);
  },
  async listTunings() {
    return (await import("../runtime/mod.ts")).knownTunings();
  },
  async listKernels() {
    return (await import("../runtime/mod.ts")).listKernels();
  },
  async kernelSources(options) {
    return (await import("../runtime/mod.ts")).kernelSources(options);
  },
  async clearKernels(options) {
    return (await import("../runtime/mod.ts")).clearKernels(options);
  },
  async doctorReport() {
    return (await import("../runtime/mod.ts")).doctorReport();
  },
  async inspectModel(path, options) {
    return (await import("../runtime/mod.ts")).inspectModel(path, options);
  },
  async locateModel(text) {
    return (await import("../runtime/hub/locate.ts")).locateModel(text);
  },
  async pullModel(text, options) {
    return (await import("../runtime/hub/pull.ts")).pullModel(text, options);
  },
  async listModels() {
    return (await import("../runtime/hub/models.ts")).listModels();
  },
  async remoteModels() {
    return (await import("../runtime/hub/remote_models.ts")).remoteModels();
  },
  async modelRemoval(text) {
    return (await import("../runtime/hub/models.ts")).modelRemoval(text);
  },
  async removeModels(removal) {
    await (await import("../runtime/hub/models.ts")).removeModels(removal);
  },
  async convertModel(source, destination, options) {
    const { convertModel } = await import("../runtime/convert/convert.ts");
    return convertModel(source, destination, options);
  },
};
