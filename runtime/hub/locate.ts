/** What `--model` may be: a path, or a name of a model in the hub's cache. Asks no network. */
import fs from "node:fs";
import { isGranted } from "../../kernels/permissions.ts";
import { shown } from "../errors.ts";
import { HubError } from "./errors.ts";
import { type HubName, parseHubName } from "./names.ts";
import { hubCacheFolder, isHubCacheKnown } from "./settings.ts";
import { cachedPath } from "./snapshot.ts";

/** The model is of the hub, and not here: `pull` would fetch it. */
export class NotPulledError extends HubError {
  override name = "NotPulledError";
}

/**
 * The path of a model. What exists as a path is one; else names of the hub are looked up.
 *
 * @throws {NotPulledError} If it is a name of the hub that is not in the cache.
 * @throws {UsageError} If several revisions or files in the cache could be meant.
 */
export function locateModel(text: string, cacheFolder?: string): string {
  const name = parseHubName(text);
  if (name === null || isThere(text)) return text;
  if (cacheFolder === undefined && !mayLook(text)) return text;
  const folder = cacheFolder ?? hubCacheFolder();
  const found = cachedPath(folder, name);
  if (found !== null) return found;
  throw new NotPulledError(
    `Cannot open ${shown(text)}: ${otherwise(text, name)} in the hub's cache ${folder}, ` +
      `\`trilith pull ${text}\` fetches it`,
  );
}

function isThere(text: string): boolean {
  return isGranted({ name: "read", path: text }) && fs.existsSync(text);
}

/**
 * A text that may be a path as well is taken for one where neither may be looked at: the message
 * about the missing permission is then about the path.
 */
function mayLook(text: string): boolean {
  if (isHubCacheKnown() && isGranted({ name: "read", path: hubCacheFolder() })) return true;
  return isGranted({ name: "read", path: text }) || !text.includes("/") || text.startsWith("hf:");
}

function otherwise(text: string, { file }: HubName): string {
  const isPathLike = /^[\w.-]+\/[\w.-]+$/.test(text);
  if (isPathLike) return "there is no such file or folder, and no such model";
  return file === null ? "there is no such model" : "there is no such file of that model";
}
