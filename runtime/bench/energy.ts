import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { environmentVariable, isAllGranted } from "../../kernels/permissions.ts";

/**
 * A counter of energy. `package` is a socket with its cores and caches, `dram` its memory, which is
 * not in it; `part` is inside of a package, and `platform` has everything in it: both are only told.
 */
export interface EnergyDomain {
  /** As the system names it, such as package-0 or dram-0 (the dram of package 0). */
  name: string;
  /** What it counts. */
  kind: "package" | "dram" | "platform" | "part";
  /** File with microjoules. */
  file: string;
  /** Microjoules after which the counter begins again at 0; null if it never does. */
  range: number | null;
}

/** Why no energy can be told, and what to do. */
export interface EnergyProblem {
  /** It is not. */
  available: false;
  /** What stands in the way. */
  reason: string;
  /** What to do about it. */
  remedy: string;
}

/** Joules of each domain, in the meter's order, during some work. */
export type Joules = readonly number[];

/** Something was wrong with a counter. */
class CounterError extends Error {
  constructor(message: string, readonly remedy: string) {
    super(message);
  }
}

const NO_RAPL = "measure on the machine itself: virtual machines and containers seldom have it" +
  "; the kernel's module is intel_rapl_msr, for AMD too";
const ROOT_ONLY = "run as root, or let everybody read it with " +
  "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` until the next start";
const TRY_AGAIN = "run again without --energy, and report this if it stays";

/** Folder of the system's files; tests put another in its place. */
function sysfsRoot(): string {
  return environmentVariable("TRILITH_SYSFS") ?? "/sys";
}

/** Reads the counters that this machine has. */
export class EnergyMeter {
  private constructor(readonly domains: readonly EnergyDomain[]) {}

  /** @returns The meter, or why there is none. Nothing is thrown for what a system lacks. */
  static open(root = sysfsRoot()): EnergyMeter | EnergyProblem {
    return orProblem(() => {
      const domains = findDomains(root);
      const meter = new EnergyMeter(domains);
      meter.#read();
      return meter;
    });
  }

  /** Runs `work` and tells the joules that all domains used meanwhile. */
  async measure(work: () => Promise<void>): Promise<Joules | EnergyProblem> {
    const before = orProblem(() => this.#read());
    await work();
    if ("available" in before) return before;
    return orProblem(() => this.#since(before, this.#read()));
  }

  #read(): number[] {
    return this.domains.map(({ file, range }) => {
      const value = counterOf(file);
      if (range === null || value <= range) return value;
      throw new CounterError(
        `${file} is ${value}, which is above its range of ${range}`,
        TRY_AGAIN,
      );
    });
  }

  /** A counter that is smaller than before has begun again once: the next time is minutes away. */
  #since(before: readonly number[], after: readonly number[]): number[] {
    return this.domains.map(({ file, range }, i) => {
      const difference = after[i] - before[i];
      if (difference >= 0) return difference / 1e6;
      if (range !== null) return (difference + range) / 1e6;
      throw new CounterError(`${file} went back from ${before[i]} to ${after[i]}`, TRY_AGAIN);
    });
  }
}

function orProblem<T>(read: () => T): T | EnergyProblem {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof CounterError)) throw error;
    return { available: false, reason: error.message, remedy: error.remedy };
  }
}

// ---------------------------------------------------------------- finding counters

function findDomains(root: string): EnergyDomain[] {
  if (root === "/sys" && process.platform !== "linux") {
    throw new CounterError(
      `energy is read from Linux's powercap, this is ${process.platform}`,
      process.platform === "darwin" ? "look at powermetrics meanwhile" : NO_RAPL,
    );
  }
  if (root === "/sys" && !isAllGranted()) {
    throw new CounterError("Deno gives /sys only to a process that may do everything", "add -A");
  }
  const found = [...powercapDomains(root), ...amdDomains(root)];
  if (found.some(({ kind }) => kind === "package")) return found;
  throw new CounterError(
    `there are no energy counters (intel-rapl in ${path.join(root, "class/powercap")}` +
      `, amd_energy in ${path.join(root, "class/hwmon")})`,
    NO_RAPL,
  );
}

/**
 * Linux's powercap: intel-rapl:0 is a package, on AMD too, and intel-rapl:0:1 something of it.
 * intel-rapl-mmio has the same packages once more, by another way.
 */
function powercapDomains(root: string): EnergyDomain[] {
  const folder = path.join(root, "class", "powercap");
  const zones = namesIn(folder).filter((name) => /^intel-rapl:\d+(:\d+)?$/.test(name)).sort();
  return zones.map((zone) => {
    const at = (file: string) => path.join(folder, zone, file);
    const label = textOf(at("name"));
    const socket = /:(\d+)/.exec(zone)![1];
    return {
      name: /^(package|psys)/.test(label) ? label : `${label}-${socket}`,
      kind: kindOf(label),
      file: at("energy_uj"),
      range: counterOf(at("max_energy_range_uj")),
    };
  });
}

function kindOf(label: string): EnergyDomain["kind"] {
  if (label.startsWith("package")) return "package";
  if (label === "psys") return "platform";
  return label === "dram" ? "dram" : "part";
}

/** The older driver of AMD's servers: Esocket0 is a package, Ecore000 one of its cores. */
function amdDomains(root: string): EnergyDomain[] {
  const folder = path.join(root, "class", "hwmon");
  const monitors = namesIn(folder).map((name) => path.join(folder, name))
    .filter((monitor) => namesIn(monitor).includes("name"))
    .filter((monitor) => textOf(path.join(monitor, "name")) === "amd_energy");
  return monitors.flatMap((monitor) =>
    namesIn(monitor).filter((name) => /^energy\d+_label$/.test(name)).flatMap((name) => {
      const label = textOf(path.join(monitor, name));
      if (!label.startsWith("Esocket")) return [];
      const file = path.join(monitor, name.replace("_label", "_input"));
      return [{ name: label, kind: "package" as const, file, range: null }];
    })
  );
}

/** Empty where there is no such folder. */
function namesIn(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

// ---------------------------------------------------------------- reading files

function textOf(file: string): string {
  try {
    return fs.readFileSync(file, "utf8").trim();
  } catch (error) {
    throw unreadable(file, error as Error & { code?: string });
  }
}

function unreadable(file: string, error: Error & { code?: string }): CounterError {
  if (error.code === "EACCES" || error.code === "EPERM" || error.name === "NotCapable") {
    return new CounterError(`${file} may be read by root only`, ROOT_ONLY);
  }
  if (error.code === "ENOENT") return new CounterError(`${file} is not there`, TRY_AGAIN);
  return new CounterError(`${file} can't be read: ${error.message}`, TRY_AGAIN);
}

/** Microjoules. Counters stay far below 2^53: that is 285 years of a kilowatt. */
function counterOf(file: string): number {
  const text = textOf(file);
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(value)) return value;
  const shown = JSON.stringify(text.slice(0, 40));
  throw new CounterError(`${file} must hold a number of microjoules, not ${shown}`, TRY_AGAIN);
}
