/** How people name a model of the hub: `org/name`, `hf:org/name@revision:file.gguf`, its address. */
import { UsageError } from "../errors.ts";
import { catalogueEntry } from "./catalogue.ts";

export interface HubName {
  /** `org/name`; a few old ones have no organisation. */
  readonly repo: string;
  /** A branch, tag or commit; null is the default branch. */
  readonly revision: string | null;
  /** A file of it, or a word of a GGUF file's name such as `TQ2_0`. */
  readonly file: string | null;
}

export const DEFAULT_REVISION = "main";

const SCHEME = /^hf:(?:\/\/)?/i;
const ADDRESS = /^(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\//i;
const NAME = /^([^@:]+)(?:@([^:]+))?(?::(.+))?$/;
const PART = /^\w[\w.-]{0,95}$/;
/** A path of an address: its page of a revision, or of a file. */
const PAGE = /^([^/]+\/[^/]+)\/(?:tree|blob|resolve)\/([^/]+)(?:\/(.+))?$/;

/**
 * @returns Null if the text can't be meant for the hub, as it is a path.
 * @throws {UsageError} If it says that it is of the hub but is malformed.
 */
export function parseHubName(text: string): HubName | null {
  const listed = catalogueEntry(text);
  if (listed !== null) return { repo: listed.repo, revision: null, file: listed.file };
  const explicit = SCHEME.test(text) || ADDRESS.test(text);
  const name = ADDRESS.test(text)
    ? ofAddress(text.replace(ADDRESS, ""))
    : ofParts(text.replace(SCHEME, ""));
  if (name !== null && (explicit || name.repo.includes("/"))) return name;
  if (!explicit) return null;
  throw new UsageError(
    `Cannot use ${JSON.stringify(text.slice(0, 120))}: give hf:ORG/NAME, with @REVISION or ` +
      `:FILE.gguf behind it if need be`,
  );
}

/** As parseHubName, where nothing but a name of the hub will do. */
export function requireHubName(text: string): HubName {
  const name = parseHubName(text);
  if (name !== null) return name;
  throw new UsageError(
    `Cannot find ${JSON.stringify(text.slice(0, 120))} on the hub: give ORG/NAME or a name ` +
      `that \`list --remote\` shows`,
  );
}

/** The shortest text that parseHubName reads back. */
export function hubNameText({ repo, revision, file }: HubName): string {
  const text = repo + (revision === null ? "" : `@${revision}`) + (file === null ? "" : `:${file}`);
  return repo.includes("/") ? text : `hf:${text}`;
}

function ofAddress(rest: string): HubName | null {
  const [path] = rest.split(/[?#]/, 1);
  const [, repo, revision, file] = PAGE.exec(path) ?? [];
  if (repo === undefined) return ofParts(path.replace(/\/+$/, ""));
  try {
    return checked(repo, decodeURIComponent(revision), file ? decodeURIComponent(file) : null);
  } catch {
    // A percent sign that escapes nothing.
    return null;
  }
}

function ofParts(text: string): HubName | null {
  const [, repo, revision, file] = NAME.exec(text) ?? [];
  return repo === undefined ? null : checked(repo, revision ?? null, file ?? null);
}

function checked(repo: string, revision: string | null, file: string | null): HubName | null {
  if (!isRepoId(repo)) return null;
  if (revision !== null && !isSafePath(revision)) return null;
  if (file !== null && !isSafePath(file)) return null;
  return { repo, revision, file };
}

/** The hub's own rule: two names of letters, digits, `-`, `_` and `.`, without `--` and `..`. */
export function isRepoId(repo: string): boolean {
  const parts = repo.split("/");
  return parts.length <= 2 && parts.every((part) => PART.test(part)) &&
    !/--|\.\.|\.git$/.test(repo);
}

/**
 * Whether a path that came from elsewhere stays below the folder that it is joined to, on every
 * system: no `..`, no drive, no backslash, nothing that a terminal would obey.
 */
export function isSafePath(path: string): boolean {
  return path.length <= 1024 && path.split("/").every(isSafePart);
}

// deno-lint-ignore no-control-regex
const UNSAFE = /[\x00-\x1f\x7f-\x9f\\:*?"<>|\u2028\u2029\u202a-\u202e\u2066-\u2069]/;
const DEVICE = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i;

function isSafePart(part: string): boolean {
  return part !== "" && part !== "." && part !== ".." && part.length <= 255 &&
    !UNSAFE.test(part) && !DEVICE.test(part) && !/[. ]$/.test(part);
}
