/** Exactly what Deno must allow for each command: the README quotes it, and the tests run it. */
import path from "node:path";
import { ROOT } from "./paths.ts";

/** What the lists depend on. */
export interface Places {
  /** TRILITH_CACHE. */
  cache: string;
  /** TRILITH_ZIG. */
  zig: string;
  /** Folder of the model. */
  model: string;
}

/** `deno run`'s flags without values, and the values of each. */
export type Permissions = Readonly<Record<string, readonly string[]>>;

/**
 * Running a model with native kernels. Deno's own child processes look at NODE_V8_COVERAGE; the
 * hand-written part of the kernels is read where it lies.
 */
export function nativePermissions({ cache, zig, model }: Places): Permissions {
  return {
    "--allow-read": [cache, model, path.join(ROOT, "kernels", "zig")],
    "--allow-write": [cache],
    "--allow-ffi": [path.join(cache, "kernels")],
    "--allow-run": [zig],
    "--allow-env": ["TRILITH_CACHE", "TRILITH_ZIG", "NODE_V8_COVERAGE"],
  };
}

/** Serving a model with native kernels at one address. */
export function servePermissions(places: Places, address: string): Permissions {
  return { ...nativePermissions(places), "--allow-net": [address] };
}

/** Running a model with `--kernels reference`. */
export function referencePermissions({ cache, model }: Places): Permissions {
  return {
    "--allow-read": [cache, model],
    "--allow-write": [cache],
    "--allow-env": ["TRILITH_CACHE"],
  };
}

/** Looking at a model, using its tokenizer, or showing the kernels that it would have. */
export function readingPermissions({ model }: Places): Permissions {
  return { "--allow-read": [model] };
}

/** Looking into the cache, and clearing it. */
export function cachePermissions({ cache }: Places): Permissions {
  return {
    "--allow-read": [cache],
    "--allow-write": [cache],
    "--allow-env": ["TRILITH_CACHE"],
  };
}

/** Rewriting a model in a folder, as a GGUF file or as packed safetensors. */
export function convertPermissions({ model }: Places, folder: string): Permissions {
  return { "--allow-read": [model, folder], "--allow-write": [folder] };
}

/** Looking into the hub's cache, which is the folder `hub` of HF_HOME. */
export function listPermissions(hub: string): Permissions {
  return { "--allow-read": [hub], "--allow-env": ["HF_HOME"] };
}

/** Fetching a model, from these hosts. */
export function pullPermissions(hub: string, hosts: readonly string[]): Permissions {
  return {
    "--allow-read": [hub],
    "--allow-write": [hub],
    "--allow-net": hosts,
    "--allow-env": ["HF_HOME"],
  };
}

/** Deleting a model, and its packed weights. */
export function removePermissions({ cache }: Places, hub: string): Permissions {
  return {
    "--allow-read": [cache, hub],
    "--allow-write": [cache, hub],
    "--allow-env": ["HF_HOME", "TRILITH_CACHE"],
  };
}

/** As a command line. */
export function flagsOf(permissions: Permissions): string[] {
  return Object.entries(permissions).map(([flag, values]) => `${flag}=${values.join(",")}`);
}

/** Every list that is one value shorter. */
export function shortened(permissions: Permissions): { without: string; flags: string[] }[] {
  return Object.entries(permissions).flatMap(([flag, values]) =>
    values.map((value) => {
      const rest = values.filter((other) => other !== value);
      const { [flag]: _, ...others } = permissions;
      const shorter = rest.length === 0 ? others : { ...others, [flag]: rest };
      return { without: `${flag}=${value}`, flags: flagsOf(shorter) };
    })
  );
}
