/**
 * Which files of a repository make up a model: its weights once, in the form that loads best, and
 * what lies beside them. Not pickles, which can run code, nor what is for other programs.
 */
import { shown, shownList, UsageError } from "../errors.ts";
import { HubError } from "./errors.ts";
import { isSafePath } from "./names.ts";
import { patternMatcher } from "./patterns.ts";

export interface Selection {
  /** A GGUF file, or a word of its name such as `TQ2_0`. */
  readonly file?: string | null;
  /** In place of our own choice. */
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
}

/** What runtime/checkpoint.ts and its tokenizers read, and the terms. */
const COMPANIONS = new Set([
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
  // Embedding models say here how they pool, and what they want before texts.
  "modules.json",
  "1_Pooling/config.json",
  "config_sentence_transformers.json",
]);
const TERMS = /^(?:license|licence|notice)[^/]*$/i;
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARD = /^model-\d+-of-\d+\.safetensors$/;
const PICKLE = /\.(?:bin|pt|pth|ckpt|pkl)$/;
const GGUF = /\.gguf$/i;

/** Ternary GGUF types, the fastest to open first. All of them hold the same weights. */
const TERNARY_WORDS = ["I2_S", "TQ2_0", "TQ1_0", "PQ2_0", "Q2_0", "PTQ1_0"];

/**
 * The files to fetch.
 *
 * @param paths All files of the repository.
 * @param what Names it in errors.
 * @throws {HubError} If there is nothing to run, or only in a form that is not read.
 * @throws {UsageError} If what was asked for is not there.
 */
export function selectFiles(
  paths: readonly string[],
  what: string,
  selection: Selection,
): string[] {
  const { include = [], exclude = [] } = selection;
  const excluded = exclude.map(patternMatcher);
  const left = paths.filter((path) => !excluded.some((matches) => matches(path)));
  const chosen = include.length > 0
    ? included(left, include, what)
    : selection.file
    ? [...namedGguf(left, selection.file, what), ...left.filter((path) => TERMS.test(path))]
    : modelFiles(left, what);
  const unsafe = chosen.find((path) => !isSafePath(path));
  if (unsafe === undefined) return chosen.sort();
  throw new HubError(
    `Cannot fetch ${what}: ${shown(unsafe)} is not a file name that is safe on this machine, ` +
      `leave it out with --exclude`,
  );
}

function included(paths: readonly string[], include: readonly string[], what: string): string[] {
  const patterns = include.map(patternMatcher);
  const chosen = paths.filter((path) => patterns.some((matches) => matches(path)));
  if (chosen.length > 0) return chosen;
  throw new UsageError(
    `Cannot find a file of ${what} that fits ${shownList(include)}: it has ${shownList(paths, 8)}`,
  );
}

function modelFiles(paths: readonly string[], what: string): string[] {
  const beside = paths.filter((path) => COMPANIONS.has(path) || TERMS.test(path));
  if (paths.includes(SINGLE)) return [...beside, SINGLE];
  const shards = paths.filter((path) => SHARD.test(path));
  if (shards.length > 0 && paths.includes(INDEX)) return [...beside, INDEX, ...shards];
  const groups = ggufGroups(paths);
  if (groups.length === 0) throw noWeights(paths, what);
  return [...bestGguf(groups, what), ...paths.filter((path) => TERMS.test(path))];
}

function noWeights(paths: readonly string[], what: string): HubError {
  const pickle = paths.find((path) => PICKLE.test(path));
  return new HubError(
    pickle === undefined
      ? `Cannot run ${what} as it has no model.safetensors and no GGUF file: it has ` +
        `${shownList(paths, 8) || "no files"}, choose with --include`
      : `Cannot run ${what} as it has only Python pickles (${shown(pickle).slice(1, -1)}), which ` +
        `are not read as they can run code: look for its safetensors or GGUF form`,
  );
}

/** The parts of one model file: `name-00001-of-00003.gguf` and the like belong together. */
function parts(path: string): string {
  return path.replace(/-\d{5}-of-\d{5}(?=\.gguf$)/i, "");
}

/**
 * The only GGUF file, or the one that is ternary.
 * @throws {UsageError} If it can't be told.
 */
export function bestGguf(groups: readonly string[][], what: string): string[] {
  if (groups.length === 1) return groups[0];
  for (const word of TERNARY_WORDS) {
    const fitting = groups.filter(([first]) => hasWord(parts(first), word));
    if (fitting.length === 1) return fitting[0];
    // One of two would be a guess.
    if (fitting.length > 1) break;
  }
  const names = groups.map(([first]) => first);
  throw new UsageError(
    `Cannot choose a GGUF file of ${what}: it has ${shownList(names, 12)}, ` +
      `name one as ${what}:${shown(names[0]).slice(1, -1)}`,
  );
}

/**
 * The file that a text after the colon means, with its other parts.
 * @throws {UsageError} If it is none, or could be several.
 */
export function namedGguf(paths: readonly string[], file: string, what: string): string[] {
  const found = filesMeant(paths, file);
  if (found.length === 1) return found[0];
  const ggufs = paths.filter((path) => GGUF.test(path));
  throw new UsageError(
    `Cannot find ${shown(file)} in ${what}: ` +
      (found.length > 1
        ? `${shownList(found.map(([first]) => first), 8)} could be meant, give the whole name`
        : `it has ${shownList(ggufs.length > 0 ? ggufs : paths, 12)}`),
  );
}

/** What a text after the colon may mean: files by name, or GGUF files by a word of their names. */
export function filesMeant(paths: readonly string[], file: string): string[][] {
  if (paths.includes(file) && !GGUF.test(file)) return [[file]];
  const groups = ggufGroups(paths);
  if (paths.includes(file)) return groups.filter((group) => group.includes(file));
  return groups.filter(([first]) => hasWord(parts(first), file));
}

/** GGUF files, each with its other parts. */
export function ggufGroups(paths: readonly string[]): string[][] {
  const ggufs = paths.filter((path) => GGUF.test(path)).sort();
  return [...Map.groupBy(ggufs, parts).values()];
}

/** `TQ2_0` is a word of `bitcpm4-8b-tq2_0.gguf`, `Q2_0` is not. */
function hasWord(path: string, word: string): boolean {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  const at = name.lastIndexOf(word.toLowerCase());
  const isStart = at === 0 || (at > 0 && /[-._]/.test(name[at - 1]));
  return at >= 0 && isStart && /^(?:[-.]|$)/.test(name.slice(at + word.length));
}

/** Which of the files is to be opened: the folder of safetensors, or the first part of a GGUF file. */
export function weightsOf(paths: readonly string[]): "folder" | { file: string } | null {
  if (paths.includes(SINGLE) || paths.includes(INDEX)) return "folder";
  const [first] = paths.filter((path) => GGUF.test(path)).sort();
  return first === undefined ? null : { file: first };
}
