/** What happened, one line each, for people or for machines. */
import process from "node:process";

/** How much an event matters, the least first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
/** How much an event matters. */
export type LogLevel = typeof LOG_LEVELS[number];
export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = typeof LOG_FORMATS[number];

/** Facts of an event; those that are undefined or null are left out. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Takes one event, named in a few words. */
export type Log = (level: LogLevel, event: string, fields?: LogFields) => void;

export interface LogOptions {
  format: LogFormat;
  /** Events below it are dropped. */
  level: LogLevel;
  write: (line: string) => void;
  now?: () => Date;
}

export const SILENT: Log = () => {};

export function createLog(
  { format, level: least, write, now = () => new Date() }: LogOptions,
): Log {
  const line = format === "json" ? jsonLine : textLine;
  return (level, event, fields = {}) => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(least)) return;
    const known = Object.entries(fields).filter(([, value]) =>
      value !== undefined && value !== null
    );
    write(`${line(now().toISOString(), level, event, known)}\n`);
  };
}

type Line = (time: string, level: LogLevel, event: string, fields: [string, unknown][]) => string;

const jsonLine: Line = (time, level, event, fields) =>
  JSON.stringify({ time, level, event, ...Object.fromEntries(fields) });

const textLine: Line = (time, level, event, fields) =>
  [time, level, event, ...fields.map(([name, value]) => `${name}=${textOf(value)}`)].join(" ");

/** Words as they are; all else quoted, so that no value can begin a line or a field of its own. */
function textOf(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[\w./:@*{}+-]+$/.test(text) ? text : JSON.stringify(text);
}

/**
 * Logs errors of promises that nobody waits for: a mistake in one request's work is no reason to end
 * those of all others.
 */
export function logUnhandled(log: Log): Disposable {
  const listener = (reason: unknown) => log("error", "unhandled", { error: stackOf(reason) });
  process.on("unhandledRejection", listener);
  return { [Symbol.dispose]: () => void process.off("unhandledRejection", listener) };
}

export function stackOf(error: unknown): string {
  return error instanceof Error ? error.stack ?? String(error) : String(error);
}
