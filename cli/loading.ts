import type { Model } from "../runtime/types.ts";
import type { Context } from "./context.ts";
import { asUsageError, loadOptionsOf, type ModelFlags } from "./flags.ts";
import { checkModelPermissions } from "./permissions.ts";
import { createProgress } from "./progress.ts";

/** Loads the model that the flags name, with progress on standard error. */
export async function loadModel(
  { io, engine }: Context,
  flags: ModelFlags & { maxBatchTokens?: number },
  signal: AbortSignal,
): Promise<Model> {
  checkModelPermissions(flags.model, flags.kernels);
  const progress = createProgress(io.stderr, { quiet: flags.quiet });
  const options = {
    ...loadOptionsOf(flags),
    maxBatchTokens: flags.maxBatchTokens,
    onProgress: progress.report,
    signal,
  };
  try {
    return await engine.loadModel(flags.model, options);
  } catch (error) {
    throw asUsageError(error);
  } finally {
    progress.done();
  }
}
