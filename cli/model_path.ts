/** What `--model` names: a path, or a model of the hub that is in its cache or may be fetched. */
import { type Context, interruptible } from "./context.ts";
import type { Io } from "./io.ts";
import { createProgress } from "./progress.ts";
import { bytes } from "./format.ts";
import { checkHubPermissions } from "./permissions.ts";
import type { PullReport } from "../runtime/hub/pull.ts";

export interface ModelPathFlags {
  model?: string;
  /** Fetch a model of the hub that is not here. */
  pull?: boolean;
  quiet?: boolean;
}

/**
 * The path to open; undefined is the embedded model.
 *
 * @throws {HubError} If it is a name of the hub that is not in the cache, and not to be fetched.
 */
export async function modelPath(
  { io, engine }: Context,
  { model, pull, quiet }: ModelPathFlags,
): Promise<string | undefined> {
  if (model === undefined) return undefined;
  try {
    return await engine.locateModel(model);
  } catch (error) {
    if (!pull || !isNotPulled(error)) throw error;
  }
  checkHubPermissions();
  await interruptible(io, async (signal) => {
    await withPullProgress(io, quiet, (display) => engine.pullModel(model, { ...display, signal }));
  });
  return await engine.locateModel(model);
}

/** Flags whose model is a path. */
export async function withModelPath<Flags extends ModelPathFlags>(
  context: Context,
  flags: Flags,
): Promise<Flags> {
  if (flags.model === undefined) return flags;
  return { ...flags, model: await modelPath(context, flags) };
}

/** By name, as the class is loaded only with its module. */
function isNotPulled(error: unknown): boolean {
  return (error as { name?: unknown })?.name === "NotPulledError";
}

/** Shows a pull on standard error. */
export async function withPullProgress<T>(
  { stderr }: Pick<Io, "stderr">,
  quiet: boolean | undefined,
  pull: (display: {
    onProgress: ReturnType<typeof createProgress>["report"];
    onPlan: (plan: PullReport) => void;
    onNotice: (text: string) => void;
  }) => Promise<T>,
): Promise<T> {
  const progress = createProgress(stderr, { quiet });
  const say = (text: string) => {
    progress.done();
    if (!quiet) stderr.write(`${text}\n`);
  };
  try {
    return await pull({
      onProgress: progress.report,
      onPlan: (plan) => plan.neededBytes > 0 && say(planText(plan)),
      onNotice: say,
    });
  } finally {
    progress.done();
  }
}

function planText({ repo, commit, files, neededBytes, bytes: all }: PullReport): string {
  const part = neededBytes < all ? ` of ${bytes(all)}` : "";
  const count = files.filter(({ state }) => state !== "present").length;
  return `Fetching ${count} ${count === 1 ? "file" : "files"}, ${bytes(neededBytes)}${part}, of ` +
    `${repo} at ${commit.slice(0, 8)}`;
}
