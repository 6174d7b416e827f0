import os from "node:os";
import path from "node:path";
import process from "node:process";
import { environmentVariable, isGranted, type PermissionQuery } from "../kernels/permissions.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";

/** Deno was started without a permission that the command needs. */
export class PermissionError extends Error {
  override readonly name = "PermissionError";
}

type PathPermission = Extract<PermissionQuery, { path?: string }> & { path: string };

/**
 * What loading a model always needs. Asked for before the work starts: on a terminal Deno would
 * stop at each one and prompt, in the middle of a command whose output a script may be reading.
 *
 * @throws {PermissionError} Naming all flags that are missing.
 */
export function checkModelPermissions(model: string | undefined): void {
  const cache = cacheRoot();
  if (cache === null) throw missingError(["--allow-env"]);
  checkPermissions(
    { name: "read", path: model ?? embeddedModelFolder() },
    { name: "read", path: cache },
    { name: "write", path: cache },
    { name: "ffi", path: cache },
  );
}

/** Where `kernels/cache.ts` will keep its files, or null if the environment can't be read. */
function cacheRoot(): string | null {
  const own = environmentVariable("TRILITH_CACHE");
  if (own !== null) return path.resolve(own);
  const xdg = environmentVariable("XDG_CACHE_HOME");
  if (xdg !== null && path.isAbsolute(xdg)) return path.join(xdg, "trilith");
  const home = homeDirectory();
  if (home === null) return null;
  if (process.platform === "win32") {
    const local = environmentVariable("LOCALAPPDATA") ?? path.join(home, "AppData/Local");
    return path.join(local, "trilith", "cache");
  }
  const base = process.platform === "darwin" ? "Library/Caches" : ".cache";
  return path.join(home, base, "trilith");
}

function homeDirectory(): string | null {
  const named = environmentVariable("HOME") ?? environmentVariable("USERPROFILE");
  return named ?? (isGranted({ name: "sys", kind: "homedir" }) ? os.homedir() : null);
}

/** @throws {PermissionError} Naming all flags that are missing. */
export function checkPermissions(...queries: PathPermission[]): void {
  const missing = queries.filter((query) => !isGranted(query));
  if (missing.length === 0) return;
  const names = new Set(missing.map(({ name }) => name));
  throw missingError([...names].map((name) => {
    const paths = missing.filter((query) => query.name === name).map((query) => query.path);
    return `--allow-${name}=${paths.join(",")}`;
  }));
}

function missingError(flags: readonly string[]): PermissionError {
  return new PermissionError(
    `Cannot run without Deno's permission: add ${[...new Set(flags)].join(" ")}` +
      ` to \`deno run\`, or -A for all`,
  );
}

/** Deno's own error for a missing permission as one line, or null for any other error. */
export function permissionMessage(error: unknown): string | null {
  const { name, message } = error as { name?: string; message?: string };
  if (name !== "NotCapable" && name !== "PermissionDenied") return null;
  const flag = /--allow-[a-z]+/.exec(message ?? "")?.[0];
  if (flag === undefined) return null;
  const what = message!.split(",", 1)[0].replace(/^Requires/, "it requires");
  return `Cannot go on without Deno's permission as ${what}: add ${flag} to \`deno run\`, or -A for all`;
}
