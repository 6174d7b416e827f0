import type { Engine } from "./engine.ts";
import type { Io } from "./io.ts";

/** What every command gets. */
export interface Context {
  readonly io: Io;
  readonly engine: Engine;
  /** The process's exit code if the command ends without an error. */
  exitCode: number;
}

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
/** 128 + SIGINT, as shells count it. */
export const EXIT_INTERRUPTED = 130;
/** 128 + SIGTERM. */
export const EXIT_TERMINATED = 143;

/** The person pressed Ctrl-C before there was anything to show. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
}

/** Work may take a Ctrl-C for itself. */
export interface Interrupts {
  /** Called first. True if this Ctrl-C has done what it had to. */
  take?: () => boolean;
}

/**
 * Runs work with a signal that Ctrl-C aborts; a second Ctrl-C ends the process at once.
 *
 * @throws {InterruptedError} If the work failed because it was aborted.
 */
export async function interruptible<T>(
  io: Io,
  work: (signal: AbortSignal, interrupts: Interrupts) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const interrupts: Interrupts = {};
  const remove = io.onInterrupt(() => {
    if (interrupts.take?.()) return;
    if (controller.signal.aborted) io.exit(EXIT_INTERRUPTED);
    controller.abort(new DOMException("Stopped by Ctrl-C", "AbortError"));
  });
  try {
    return await work(controller.signal, interrupts);
  } catch (error) {
    if (controller.signal.aborted && isAbort(error)) throw new InterruptedError("Stopped");
    throw error;
  } finally {
    remove();
  }
}

export function isAbort(error: unknown): boolean {
  return (error as { name?: unknown } | null)?.name === "AbortError";
}
