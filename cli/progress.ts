import type { OnProgress, Progress } from "../runtime/types.ts";
import { bytes } from "./format.ts";
import type { Output } from "./io.ts";

/** Shows progress on standard error until `done`. */
export interface ProgressDisplay {
  report: OnProgress;
  /** Wipes the line, so that what follows starts on a clean one. */
  done(): void;
}

/** Phases that take long enough the first time to want a reason, shown once. */
const EXPLANATIONS: Partial<Record<Progress["phase"], string>> = {
  toolchain: "First run: fetching the Zig compiler (a download of about 90 MB), once",
  compile: "First run with this model on this CPU: compiling its kernels, once",
  tune: "Measuring which kernels are best for this model on this CPU, once",
  pack: "First run with this model: packing its weights for this CPU, once",
};

/** A phase that is over before this needs no explanation. */
const PATIENCE_MS = 300;
const REDRAW_MS = 80;
/** Between lines where nothing can be rewritten, such as a log file. */
const LOG_INTERVAL_MS = 10_000;

/**
 * On a terminal one line that is rewritten in place; elsewhere a line when a phase starts and every
 * ten seconds; nothing when quiet.
 */
export function createProgress(
  output: Output,
  { quiet = false, nowMs = () => performance.now() } = {},
): ProgressDisplay {
  if (quiet) return { report: () => {}, done: () => {} };
  return output.isTerminal ? new LiveLine(output, nowMs) : new LogLines(output, nowMs);
}

class LiveLine implements ProgressDisplay {
  readonly #explained = new Set<string>();
  #phase: string | null = null;
  #phaseMs = 0;
  #drawnMs = -Infinity;
  #isDrawn = false;

  constructor(private readonly output: Output, private readonly nowMs: () => number) {}

  report = (progress: Progress): void => {
    const now = this.nowMs();
    if (progress.phase !== this.#phase) {
      this.#phase = progress.phase;
      this.#phaseMs = now;
      this.#drawnMs = -Infinity;
    }
    this.#explain(progress, now);
    if (now - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = now;
    const line = textOf(progress).slice(0, Math.max(1, this.output.columns - 1));
    this.output.write(`\r\x1b[2K${line}`);
    this.#isDrawn = true;
  };

  done(): void {
    if (this.#isDrawn) this.output.write("\r\x1b[2K");
    this.#isDrawn = false;
    this.#phase = null;
  }

  #explain({ phase }: Progress, now: number): void {
    const explanation = EXPLANATIONS[phase];
    if (explanation === undefined || this.#explained.has(phase)) return;
    if (now - this.#phaseMs < PATIENCE_MS) return;
    this.#explained.add(phase);
    this.output.write(`\r\x1b[2K${explanation}\n`);
    this.#drawnMs = -Infinity;
  }
}

class LogLines implements ProgressDisplay {
  #phase: string | null = null;
  #writtenMs = 0;

  constructor(private readonly output: Output, private readonly nowMs: () => number) {}

  report = (progress: Progress): void => {
    const now = this.nowMs();
    const isNew = progress.phase !== this.#phase;
    if (!isNew && now - this.#writtenMs < LOG_INTERVAL_MS) return;
    this.#phase = progress.phase;
    this.#writtenMs = now;
    const explanation = isNew ? EXPLANATIONS[progress.phase] : undefined;
    // Short phases without a reason to be long would only be noise in a log, unless they last.
    if (explanation === undefined && isNew) return;
    if (explanation !== undefined) this.output.write(`${explanation}\n`);
    this.output.write(`${textOf(progress)}\n`);
  };

  done(): void {}
}

/** "Packing weights 45 % (210 MB of 466 MB)". */
function textOf({ message, done, total, unit, perSecond }: Progress): string {
  if (done === undefined) return message;
  const amount = (count: number) =>
    unit === "bytes" ? bytes(count) : `${count} ${unit ?? ""}`.trim();
  if (!total) return `${message} ${amount(done)}`;
  const percent = Math.floor(100 * Math.min(1, done / total));
  const pace = perSecond ? `, ${amount(perSecond)}/s, ${timeLeft((total - done) / perSecond)}` : "";
  return `${message} ${percent} % (${amount(done)} of ${amount(total)}${pace})`;
}

function timeLeft(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s left`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? `${minutes} min left` : `${(seconds / 3600).toFixed(1)} h left`;
}
