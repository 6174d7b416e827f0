import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Place, urlHost } from "../api/place.ts";
import type { KernelChoice } from "../codegen/isa.ts";
import { cacheRoot } from "../kernels/cache.ts";
import { environmentVariable, isGranted } from "../kernels/permissions.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { hubCacheFolder, hubSettings, isHubCacheKnown } from "../runtime/hub/settings.ts";

/** Deno was started without a permission that the command needs. */
export class PermissionError extends Error {
  override readonly name = "PermissionError";
}

type PathPermission = { name: "read" | "write"; path: string };

/** Zig sources that are compiled beside the generated one. */
const ZIG_VOCABULARY = fileURLToPath(new URL("../kernels/zig", import.meta.url));

/*
 * Permissions are asked for before the work starts: on a terminal Deno would stop at each one and
 * prompt, in the middle of a command whose output a script may be reading.
 */

/**
 * What running a model needs. The reference kernels are TypeScript: they need no compiler.
 *
 * @throws {PermissionError} Naming flags that are missing.
 */
export function checkModelPermissions(model: string | undefined, kernels?: KernelChoice): void {
  const read = { name: "read", path: model ?? embeddedModelFolder() } as const;
  if (kernels === "reference") return checkCachePermissions(read);
  checkCachePermissions(read, { name: "read", path: ZIG_VOCABULARY });
  const kernelFolder = path.join(requireCacheRoot(), "kernels");
  if (!isGranted({ name: "ffi", path: kernelFolder })) {
    throw missingError([`--allow-ffi=${kernelFolder}`]);
  }
  checkCompilerPermission();
}

/** @throws {PermissionError} If the cache directory, or one of `more`, can't be used. */
export function checkCachePermissions(...more: PathPermission[]): void {
  const path = requireCacheRoot();
  checkPermissions(...more, { name: "read", path }, { name: "write", path });
}

/**
 * Zig is run to compile, and to know the CPU. Where it will be is known beforehand only if
 * TRILITH_ZIG says so.
 *
 * @throws {PermissionError} If it may not be run.
 */
export function checkCompilerPermission(): void {
  const command = environmentVariable("TRILITH_ZIG");
  if (isGranted({ name: "run" })) return;
  if (command === null) throw missingError(["--allow-run"]);
  if (!isGranted({ name: "run", command })) throw missingError([`--allow-run=${command}`]);
}

/**
 * Looking into the hub's cache, or changing it.
 *
 * @throws {PermissionError} If it may not be done.
 */
export function checkHubCachePermission(...more: "write"[]): void {
  if (!isHubCacheKnown()) throw missingError(["--allow-env"]);
  const path = hubCacheFolder();
  checkPermissions({ name: "read", path }, ...more.map((name) => ({ name, path })));
}

/**
 * Fetching from the hub. Where its storage is only the hub knows: Deno's own error names it.
 *
 * @throws {PermissionError} If it may not be done.
 */
export function checkHubPermissions(): void {
  checkHubCachePermission("write");
  const { host } = new URL(hubSettings().endpoint);
  if (!isGranted({ name: "net", host })) throw missingError([`--allow-net=${host}`]);
}

/**
 * Listening on an address, or on a Unix socket.
 *
 * @throws {PermissionError} If it may not be done.
 */
export function checkListenPermission(place: Place): void {
  if ("socket" in place) {
    const { socket } = place;
    checkPermissions({ name: "read", path: socket }, { name: "write", path: socket });
  }
  const host = netHostOf(place);
  if (!isGranted({ name: "net", host })) throw missingError([`--allow-net=${host}`]);
}

/** As Deno names a place. */
function netHostOf(place: Place): string {
  if ("socket" in place) return `unix:${path.resolve(place.socket)}`;
  const host = urlHost(place.host);
  // Port 0 becomes any port.
  return place.port === 0 ? host : `${host}:${place.port}`;
}

/** The cache's place follows from the environment. */
function requireCacheRoot(): string {
  const known = ["TRILITH_CACHE", "XDG_CACHE_HOME", "HOME", "USERPROFILE"]
    .some((name) => environmentVariable(name) !== null);
  if (!known && !isGranted({ name: "sys", kind: "homedir" })) throw missingError(["--allow-env"]);
  return cacheRoot();
}

/**
 * Converting: the output is made beside its place.
 *
 * @param isNative Whether kernels are compiled or run.
 * @throws {PermissionError} If it may not be done.
 */
export function checkConvertPermissions(
  source: string,
  destination: string,
  { isNative }: { isNative: boolean },
): void {
  if (isNative) checkModelPermissions(source);
  const folder = path.dirname(path.resolve(destination));
  checkPermissions(
    { name: "read", path: source },
    { name: "read", path: folder },
    { name: "write", path: folder },
  );
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
