/** A file of a model is missing, damaged or not what its name says. */
export class CheckpointError extends SyntaxError {
  /** The class's own. */
  override name = "CheckpointError";
}

/** The files are sound, but hold a model that this version does not run. */
export class UnsupportedModelError extends TypeError {
  /** The class's own. */
  override name = "UnsupportedModelError";
}

/** A plain float model: it runs only when the caller asks for `--quantize absmean`. */
export class NotTernaryError extends UnsupportedModelError {
  /** The class's own. */
  override name = "NotTernaryError";
}

/** The model has no chat template, or its template refused the messages. */
export class ChatTemplateError extends TypeError {
  /** The class's own. */
  override name = "ChatTemplateError";
}

/** So many sequences wait already that one more is refused: try again later. */
export class QueueFullError extends Error {
  /** The class's own. */
  override name = "QueueFullError";
}

/** The caller asked for something that makes no sense; the command line exits with 2. */
export class UsageError extends TypeError {
  /** The class's own. */
  override name = "UsageError";
  /** What the command line exits with. */
  readonly exitCode = 2;
}

/** Characters of a foreign value that an error message repeats. */
const SHOWN_LENGTH = 80;

/**
 * A value from a file as one short line for an error message: JSON, cut, without control
 * characters, so that a hostile file can neither break the line nor flood the terminal.
 */
export function shown(value: unknown): string {
  const json = jsonOf(value);
  const cut = json.length > SHOWN_LENGTH ? `${json.slice(0, SHOWN_LENGTH)}...` : json;
  // deno-lint-ignore no-control-regex
  return cut.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff]/g, "?");
}

function jsonOf(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (typeof value === "string") return JSON.stringify(value.slice(0, SHOWN_LENGTH + 1));
  if (Array.isArray(value) && value.length > SHOWN_LENGTH) return `a list of ${value.length}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return typeof value;
  }
}

/** The first few of many names, for an error message: `a, b, c and 7 more`. */
export function shownList(names: readonly string[], most = 4): string {
  const first = names.slice(0, most).map((name) => shown(name).slice(1, -1)).join(", ");
  return names.length > most ? `${first} and ${names.length - most} more` : first;
}

/** What a caught value says, as one line. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.split("\n", 1)[0];
  return line.length > 200 ? `${line.slice(0, 200)}...` : line;
}
