import type { LoadOptions, Model, OnProgress } from "../runtime/types.ts";
import type { Context, Interrupts } from "./context.ts";
import { asUsageError, loadOptionsOf, type ModelFlags } from "./flags.ts";
import { modelPath } from "./model_path.ts";
import { checkModelPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";

/** Loads the model that the flags name, with progress on standard error. */
export async function loadModel(
  context: Context,
  flags: ModelFlags & Pick<LoadOptions, "maxBatchTokens" | "task">,
  signal: AbortSignal,
  interrupts: Interrupts,
): Promise<Model> {
  const { io, engine } = context;
  const path = await modelPath(context, flags);
  checkModelPermissions(path, flags.kernels);
  const progress = createProgress(io.stderr, { quiet: flags.quiet });
  const tuning = skippableTuning(interrupts, progress.report);
  const options = {
    ...loadOptionsOf(flags),
    maxBatchTokens: flags.maxBatchTokens,
    task: flags.task,
    ...tuning,
    signal,
  };
  try {
    return await engine.loadModel(path, options);
  } catch (error) {
    throw asUsageError(error);
  } finally {
    interrupts.take = undefined;
    progress.done();
  }
}

/** While the machine is tuned, Ctrl-C ends the tuning alone: the model then loads with the defaults. */
function skippableTuning(
  interrupts: Interrupts,
  report: OnProgress,
): Pick<LoadOptions, "onProgress" | "tuneSignal"> {
  const controller = new AbortController();
  let isTuning = false;
  interrupts.take = () => {
    const isFirst = isTuning && !controller.signal.aborted;
    if (isFirst) controller.abort(new DOMException("Tuning was skipped", "AbortError"));
    return isFirst;
  };
  return {
    tuneSignal: controller.signal,
    onProgress(progress) {
      isTuning = progress.phase === "tune";
      report(progress);
    },
  };
}
