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
  inspectModel(path: string | undefined): Promise<InspectReport>;
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
  async inspectModel(path) {
    return (await import("../runtime/mod.ts")).inspectModel(path);
  },
  async convertModel(source, destination, options) {
    const { convertModel } = await import("../runtime/convert/convert.ts");
    return convertModel(source, destination, options);
  },
};
