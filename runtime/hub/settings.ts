/**
 * The environment variables of Hugging Face's own tools, with their meanings: who has set them up
 * for Python has set them up for us.
 * Source: huggingface_hub's reference, "Environment variables".
 */
import os from "node:os";
import path from "node:path";
import { environmentVariable, isGranted, readTextIfAllowed } from "../../kernels/permissions.ts";
import { UsageError } from "../errors.ts";

export interface HubSettings {
  /** Of the hub or of a mirror, without a slash at the end. */
  readonly endpoint: string;
  /** Folder of `models--org--name` folders. */
  readonly cacheFolder: string;
  readonly token: string | null;
  /** No request may be made. */
  readonly isOffline: boolean;
  /** A connection that brings nothing for so long is taken for dead. */
  readonly stallMs: number;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";
const DEFAULT_STALL_SECONDS = 30;

type Environment = (name: string) => string | null;

/** @throws {UsageError} If HF_ENDPOINT can't be used. */
export function hubSettings(environment: Environment = environmentVariable): HubSettings {
  const endpoint = endpointOf(environment("HF_ENDPOINT") ?? DEFAULT_ENDPOINT);
  return {
    endpoint,
    cacheFolder: hubCacheFolder(environment),
    token: tokenOf(environment),
    isOffline: isTrue(environment("HF_HUB_OFFLINE") ?? environment("TRANSFORMERS_OFFLINE")),
    stallMs: 1000 * (Number(environment("HF_HUB_DOWNLOAD_TIMEOUT")) || DEFAULT_STALL_SECONDS),
  };
}

/** The cache that Python's tools share; it may not exist yet. */
export function hubCacheFolder(environment: Environment = environmentVariable): string {
  const own = environment("HF_HUB_CACHE") ?? environment("HUGGINGFACE_HUB_CACHE");
  return own !== null ? expanded(own, environment) : path.join(hubHome(environment), "hub");
}

/** Whether the cache's place can be known without asking the person at the terminal. */
export function isHubCacheKnown(environment: Environment = environmentVariable): boolean {
  const names = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "HOME", "USERPROFILE"];
  return names.some((name) => environment(name) !== null) ||
    isGranted({ name: "sys", kind: "homedir" });
}

function hubHome(environment: Environment): string {
  const own = environment("HF_HOME");
  if (own !== null) return expanded(own, environment);
  const xdg = environment("XDG_CACHE_HOME");
  const base = xdg ?? path.join(homeDirectory(environment), ".cache");
  return path.join(path.resolve(base), "huggingface");
}

function homeDirectory(environment: Environment): string {
  return environment("HOME") ?? environment("USERPROFILE") ?? os.homedir();
}

/** Python expands `~` itself, so that it is often written where no shell would. */
function expanded(folder: string, environment: Environment): string {
  const inHome = /^~(?=$|[\\/])/.test(folder);
  return path.resolve(inHome ? path.join(homeDirectory(environment), folder.slice(1)) : folder);
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isUsable = url !== null && /^https?:$/.test(url.protocol) && url.username === "";
  if (isUsable) return url.href.replace(/[?#].*$/, "").replace(/\/+$/, "");
  throw new UsageError(
    `Cannot use HF_ENDPOINT ${JSON.stringify(text.slice(0, 80))}: give an address such as ` +
      DEFAULT_ENDPOINT,
  );
}

function tokenOf(environment: Environment): string | null {
  if (isTrue(environment("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return null;
  const given = environment("HF_TOKEN") ?? environment("HUGGING_FACE_HUB_TOKEN");
  if (given !== null) return cleaned(given);
  const own = environment("HF_TOKEN_PATH");
  if (own === null && !isHubCacheKnown(environment)) return null;
  const file = own !== null ? expanded(own, environment) : path.join(hubHome(environment), "token");
  return cleaned(readTextIfAllowed(file) ?? "");
}

/** Copied tokens come with line ends, which a header may not have. */
function cleaned(token: string): string | null {
  return token.replace(/[\r\n]/g, "").trim() || null;
}

function isTrue(value: string | null): boolean {
  return /^(1|on|yes|true)$/i.test(value ?? "");
}
