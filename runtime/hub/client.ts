/**
 * Requests to the hub: redirects that never carry the token to another host, retries with pauses
 * where waiting may help, and errors that say what to do where it won't.
 */
import { reasonOf, shown } from "../errors.ts";
import { type Json, parseJson } from "../json.ts";
import { HubError } from "./errors.ts";
import type { HubSettings } from "./settings.ts";
import { Watchdog } from "./watchdog.ts";

/** What every request of one pull shares. */
export interface HubClient {
  readonly settings: HubSettings;
  readonly signal?: AbortSignal;
  /** The first pause before a retry; each further one is twice as long. */
  readonly retryMs: number;
  /** Told of each pause, with the reason. */
  readonly onRetry?: (reason: string, pauseMs: number) => void;
}

export const RETRY_MS = 500;
const MOST_RETRY_MS = 30_000;
/** A server that asks for more patience than this is not waited for. */
const MOST_ASKED_MS = 300_000;
/** Tries in a row that brought nothing new. */
const MOST_TRIES = 6;
const MOST_REDIRECTS = 10;
/** Listings are pages of at most 1,000 files. */
const MOST_JSON_BYTES = 32 << 20;

/** Trying again may help. */
export class TransientError extends Error {
  override readonly name = "TransientError";
  constructor(reason: string, readonly askedMs: number | null = null) {
    super(reason);
  }
}

/**
 * Tries until it succeeds, fails for good, or has failed six times without getting further.
 *
 * @param attempt Does it, and returns or throws; a TransientError is tried again.
 * @param progress Grows while it gets further: then the tries are counted anew.
 */
export async function withRetries<T>(
  client: HubClient,
  attempt: () => Promise<T>,
  progress: () => number = () => 0,
): Promise<T> {
  for (let tries = 1, before = progress();; tries++) {
    client.signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      client.signal?.throwIfAborted();
      if (!(error instanceof TransientError)) throw error;
      if (progress() > before) tries = 1;
      before = progress();
      if (tries >= MOST_TRIES || (error.askedMs ?? 0) > MOST_ASKED_MS) throw givenUp(error);
      await pause(client, error, tries);
    }
  }
}

function givenUp({ message, askedMs }: TransientError): HubError {
  const when = askedMs === null ? "try again later" : `try again in ${Math.ceil(askedMs / 1000)} s`;
  return new HubError(`Cannot go on fetching as ${message}: ${when}, what was fetched is kept`);
}

/** Twice as long each time, and a little by chance, so that many clients don't come back at once. */
async function pause(client: HubClient, error: TransientError, tries: number): Promise<void> {
  const own = Math.min(MOST_RETRY_MS, client.retryMs * 2 ** (tries - 1)) * (1 + Math.random() / 4);
  const pauseMs = Math.round(Math.max(own, error.askedMs ?? 0));
  client.onRetry?.(error.message, pauseMs);
  const { signal } = client;
  await new Promise<void>((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, pauseMs);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** An answer whose body is still to be read, and what the hub said of the file on the way to it. */
export interface Answer {
  readonly response: Response;
  /** `X-Linked-Etag` without its quotes: a large file's SHA-256. */
  readonly linkedEtag: string | null;
  readonly linkedSize: number | null;
}

/**
 * One GET, through all redirects, to an answer of status 2xx.
 *
 * @param what For errors: what is asked for, such as `microsoft/bitnet-b1.58-2B-4T`.
 * @throws {TransientError} If it may work a little later.
 * @throws {HubError} If it won't.
 */
export async function getOnce(
  client: HubClient,
  url: string,
  what: string,
  watchdog: Watchdog,
  headers: Record<string, string> = {},
): Promise<Answer> {
  let linkedEtag: string | null = null;
  let linkedSize: number | null = null;
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
    const response = await send(client, url, watchdog, headers);
    linkedEtag ??= plainEtag(response.headers.get("x-linked-etag"));
    linkedSize ??= sizeOf(response.headers.get("x-linked-size"));
    if (response.ok) return { response, linkedEtag, linkedSize };
    const target = redirectTarget(response, url);
    if (target === null) throw await failure(client, response, url, what);
    await discard(response);
    url = target;
  }
  throw new HubError(
    `Cannot fetch ${what}: the server redirects more than ${MOST_REDIRECTS} times, check HF_ENDPOINT`,
  );
}

async function send(
  client: HubClient,
  url: string,
  watchdog: Watchdog,
  headers: Record<string, string>,
): Promise<Response> {
  watchdog.touch();
  try {
    return await fetch(url, {
      redirect: "manual",
      signal: watchdog.signal,
      headers: {
        ...headers,
        ...authorization(client.settings, url),
        "accept-encoding": "identity",
      },
    });
  } catch (error) {
    throw networkError(client, error, new URL(url).host, watchdog);
  }
}

/** The token is for the hub alone: storage has its own keys in its addresses. */
function authorization(
  { endpoint, token }: HubSettings,
  url: string,
): { authorization?: string } {
  const target = new URL(url);
  if (token === null || target.origin !== new URL(endpoint).origin) return {};
  if (target.protocol === "https:" || isLoopback(target.hostname)) {
    return { authorization: `Bearer ${token}` };
  }
  throw new HubError(
    `Cannot send your token to ${target.origin} as it would travel unencrypted: ` +
      `use https in HF_ENDPOINT, or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1`,
  );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(?:\.\d+){3}$/.test(host);
}

/** What fetch or a body threw: a caller's abort and a missing permission are not the network's. */
export function networkError(
  { signal }: HubClient,
  error: unknown,
  host: string,
  watchdog: Watchdog,
): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof TransientError || error instanceof HubError) return error;
  const { name } = error as { name?: string };
  if (name === "NotCapable" || name === "PermissionDenied") return error;
  if (watchdog.hasBarked) {
    return new TransientError(`${host} sends nothing for ${watchdog.stallMs / 1000} s`);
  }
  // Bun adds what to do to see more.
  const [reason] = reasonOf(error).split(/\.? For more information/, 1);
  return new TransientError(`the connection to ${host} failed (${reason})`);
}

function redirectTarget(response: Response, url: string): string | null {
  const location = response.headers.get("location");
  if (![301, 302, 303, 307, 308].includes(response.status) || location === null) return null;
  if (!URL.canParse(location, url)) return null;
  const target = new URL(location, url);
  const isDowngrade = new URL(url).protocol === "https:" && target.protocol !== "https:";
  if (!isDowngrade && /^https?:$/.test(target.protocol)) return target.href;
  throw new HubError(
    `Cannot follow ${new URL(url).host} to ${shown(target.protocol + "//" + target.host)}: ` +
      `only https may follow https, check HF_ENDPOINT`,
  );
}

/** Frees the connection of a body that nobody wants. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {});
}

const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504, 520, 522, 524]);

async function failure(
  client: HubClient,
  response: Response,
  url: string,
  what: string,
): Promise<Error> {
  const { status, headers } = response;
  await discard(response);
  const { host, origin } = new URL(url);
  if (RETRIED.has(status)) {
    return new TransientError(`${host} answers ${status}`, askedPauseMs(headers));
  }
  const isHub = origin === new URL(client.settings.endpoint).origin;
  return new HubError(
    `Cannot fetch ${what}: ${
      isHub ? remedy(client, status, headers, what) : `${host} answers ${status}, try again later`
    }`,
  );
}

/** `Retry-After` in seconds or as a date, or the hub's own `RateLimit: "api";r=0;t=55`. */
function askedPauseMs(headers: Headers): number | null {
  const after = headers.get("retry-after");
  const seconds = /^\d+$/.test(after ?? "")
    ? Number(after)
    : after !== null
    ? (Date.parse(after) - Date.now()) / 1000
    : Number(/;\s*r=0\b.*;\s*t=(\d+)/.exec(headers.get("ratelimit") ?? "")?.[1] ?? NaN);
  return Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : null;
}

function remedy({ settings }: HubClient, status: number, headers: Headers, what: string): string {
  const code = headers.get("x-error-code");
  const repo = what.replace(/[@:].*$/, "");
  const page = `${settings.endpoint}/${repo}`;
  const login = settings.token === null
    ? "set HF_TOKEN to a token of yours"
    : "the token in HF_TOKEN or in HF_HOME may not read it";
  if (code === "GatedRepo") {
    return `its authors want their terms accepted at ${page}, then ${login}`;
  }
  if (code === "RevisionNotFound") {
    return `it has no such revision, ${page}/tree/main has its branches`;
  }
  if (code === "EntryNotFound") return `it has no such file, ${page}/tree/main has them`;
  if (status === 401 || status === 403) {
    return `there is no such model, or it is not public (${status}): check the name, or ${login}`;
  }
  if (status === 404) return `there is no such model at ${settings.endpoint} (404): check the name`;
  return `${settings.endpoint} answers ${status}`;
}

/** `W/"abc"` and `"abc"` are abc. */
function plainEtag(text: string | null): string | null {
  return text === null ? null : text.replace(/^W\//, "").replace(/^"|"$/g, "");
}

function sizeOf(text: string | null): number | null {
  const size = text === null || !/^\d+$/.test(text) ? NaN : Number(text);
  return Number.isSafeInteger(size) ? size : null;
}

/** JSON of the hub, and the address of its next page if there is one. */
export async function getJson(
  client: HubClient,
  url: string,
  what: string,
): Promise<{ json: Json; next: string | null }> {
  return await withRetries(client, async () => {
    await using watchdog = new Watchdog(client.settings.stallMs, client.signal);
    const { response } = await getOnce(client, url, what, watchdog);
    const text = await bodyText(client, response, watchdog);
    return { json: parseAnswer(text, url), next: nextPage(response, url) };
  });
}

async function bodyText(
  client: HubClient,
  response: Response,
  watchdog: Watchdog,
): Promise<string> {
  const { host } = new URL(response.url || client.settings.endpoint);
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of response.body ?? []) {
      watchdog.touch();
      text += decoder.decode(chunk, { stream: true });
      if (text.length <= MOST_JSON_BYTES) continue;
      throw new HubError(
        `Cannot read what ${host} answers: it is longer than ${MOST_JSON_BYTES} bytes`,
      );
    }
  } catch (error) {
    throw networkError(client, error, host, watchdog);
  }
  return text + decoder.decode();
}

function parseAnswer(text: string, url: string): Json {
  const { host } = new URL(url);
  try {
    return parseJson(text, "it");
  } catch {
    throw new HubError(
      `Cannot read what ${host} answers as it is not JSON: check HF_ENDPOINT, or the proxy between`,
    );
  }
}

function nextPage(response: Response, url: string): string | null {
  const [, next] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "") ?? [];
  return next !== undefined && URL.canParse(next, url) ? new URL(next, url).href : null;
}
