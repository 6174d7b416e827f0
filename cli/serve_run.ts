/** A server's life: listen, load, answer, drain, end. Imported only when a server is started. */
import path from "node:path";
import { createApp } from "../api/app.ts";
import { docsOf } from "../api/docs/routes.ts";
import { LagMonitor } from "../api/event_loop.ts";
import { ModelHost } from "../api/host.ts";
import { Lifecycle } from "../api/lifecycle.ts";
import { createLog, type Log, logUnhandled } from "../api/log.ts";
import { LogWriter } from "../api/log_writer.ts";
import { Metrics } from "../api/metrics.ts";
import { isLoopback } from "../api/middleware/host.ts";
import { type Place, urlHost } from "../api/place.ts";
import { type RunningServer, startServer } from "../api/server.ts";
import { DEFAULT_API_CONFIG } from "../api/services.ts";
import type { LoadOptions, OnProgress } from "../runtime/types.ts";
import { type Context, EXIT_DONE, EXIT_INTERRUPTED, EXIT_TERMINATED } from "./context.ts";
import { asUsageError, loadOptionsOf } from "./flags.ts";
import { paint, printJson } from "./format.ts";
import type { Io } from "./io.ts";
import { createProgress } from "./progress.ts";
import type { ServeFlags } from "./serve.ts";

export interface ServeSettings {
  flags: ServeFlags;
  /** What `--model` means; undefined is the embedded model. */
  modelFile: string | undefined;
  place: Place;
  apiKeys: readonly string[];
}

/** What a server has besides its model and its socket. */
interface Operations {
  lifecycle: Lifecycle;
  metrics: Metrics;
  log: Log;
  logWriter: LogWriter;
}

/** Serves until a signal ends it. Returns the process's exit code. */
export async function runServer(settings: ServeSettings, context: Context): Promise<number> {
  const { io } = context;
  const operations = operationsOf(settings.flags, io);
  using monitor = new LagMonitor();
  operations.metrics.watchEventLoop(monitor);
  using _ = logUnhandled(operations.log);
  const loading = new AbortController();
  const listening = Promise.withResolvers<void>();
  const host = new ModelHost(nameOf(settings.flags), async (onProgress) => {
    await listening.promise;
    return await loadModel(settings, context, { onProgress, signal: loading.signal });
  });
  const app = buildApp(settings, host, operations);
  const server = await startServer(
    settings.place,
    (request, info) => app.fetch(request, { ...info }),
  );
  using stop = new StopSignal(io);
  announce(server.place, settings, io);
  listening.resolve();
  try {
    const code = await stopped(stop, host, operations.log);
    const isReady = host.state.kind === "ready";
    loading.abort(new DOMException("The server was stopped", "AbortError"));
    const aborted = await drained(operations, settings.flags.drainSeconds * 1000);
    return isReady && aborted === 0 ? EXIT_DONE : code;
  } finally {
    await close(server);
    await dispose(host);
    await operations.logWriter.flush(FLUSH_MS);
  }
}

function operationsOf(flags: ServeFlags, io: Io): Operations {
  const metrics = new Metrics();
  const logWriter = new LogWriter((text) => io.stderr.writeSoon(text));
  metrics.watchLog(logWriter);
  return { lifecycle: new Lifecycle(), metrics, logWriter, log: logOf(flags, logWriter) };
}

function buildApp(settings: ServeSettings, host: ModelHost, operations: Operations) {
  const config = {
    ...DEFAULT_API_CONFIG,
    keepAliveMs: settings.flags.keepAliveSeconds * 1000,
  };
  const services = { host, config, observer: operations.metrics.observer };
  const app = createApp(services, { ...accessOf(settings), ...operations });
  // Both are made at the first question: now, when nobody waits yet.
  app.router.match("GET", "/");
  docsOf(app);
  return app;
}

/** The code of the signal that asks for the end. @throws Why the model could not be loaded. */
async function stopped(stop: StopSignal, host: ModelHost, log: Log): Promise<number> {
  const loaded = host.loaded.then(() => logReady(host, log));
  return await Promise.race([stop.requested, loaded]) ?? await stop.requested;
}

/** How many requests had to be broken off. */
async function drained({ lifecycle, log }: Operations, ms: number): Promise<number> {
  log("info", "draining", { requests: lifecycle.runningRequests });
  const aborted = await lifecycle.drain(ms);
  log("info", "stopped", { aborted });
  return aborted;
}

function nameOf({ alias, model }: ServeFlags): string {
  if (alias !== undefined || model === undefined) return alias ?? "story";
  // Of a name of the hub neither the organisation nor the revision.
  return path.basename(path.resolve(model)).replace(/[@:].*$/, "");
}

function logOf({ logFormat: format, logLevel, quiet }: ServeFlags, writer: LogWriter): Log {
  const level = logLevel ?? (quiet ? "error" : "info");
  return createLog({ format, level, write: (line) => writer.add(line) });
}

function accessOf({ flags, place, apiKeys }: ServeSettings) {
  return {
    apiKeys,
    logPrompts: flags.logPrompts ?? false,
    allowedHosts: flags.allowedHost ?? [],
    boundAddress: "socket" in place ? null : place.host,
    corsOrigins: flags.corsOrigin ?? [],
    maxBodyBytes: flags.maxBody,
    bodyTimeoutMs: flags.bodySeconds * 1000,
    requestsPerMinute: flags.rateLimit ?? null,
    timeoutMs: flags.timeout === undefined ? null : flags.timeout * 1000,
    hasWeb: flags.web,
  };
}

/** The model, with progress on standard error and in `/health`. */
async function loadModel(
  { flags, modelFile }: ServeSettings,
  { io, engine }: Context,
  { onProgress, signal }: { onProgress: OnProgress; signal: AbortSignal },
) {
  const progress = createProgress(io.stderr, { quiet: flags.quiet });
  const options: LoadOptions = {
    ...loadOptionsOf(flags),
    maxBatchTokens: flags.batchTokens,
    cacheTokens: flags.cacheTokens ?? "auto",
    maxSequences: flags.maxSequences,
    maxWaiting: flags.maxWaiting,
    signal,
    onProgress(event) {
      progress.report(event);
      onProgress(event);
    },
  };
  try {
    const model = await engine.loadModel(modelFile, options);
    // Merges are looked up by a table that the first text makes: better now than in a request.
    await model.encode("a b");
    return model;
  } catch (error) {
    throw asUsageError(error);
  } finally {
    progress.done();
  }
}

function announce(place: Place, settings: ServeSettings, io: Io): void {
  const { flags, apiKeys } = settings;
  const model = nameOf(flags);
  if ("socket" in place) {
    if (flags.json) printJson(io.stdout, { socket: place.socket, model });
    if (!flags.quiet) io.stderr.write(`Listening on ${place.socket}, loading ${model}\n`);
    return;
  }
  const url = `http://${urlHost(place.host)}:${place.port}`;
  if (flags.json) printJson(io.stdout, { url, ...place, model });
  if (!isLoopback(place.host) && apiKeys.length === 0) {
    const label = paint(io.stderr, "yellow", "warning:");
    io.stderr.write(
      `${label} everybody who can reach ${url} may use this server: give it an --api-key\n`,
    );
  }
  if (flags.quiet) return;
  const chat = flags.web ? `chat: ${url}/, ` : "";
  io.stderr.write(
    `Loading ${model}\nListening on ${url} (${chat}docs: ${url}/docs, OpenAI base URL: ${url}/v1)\n`,
  );
}

function logReady({ name, state }: ModelHost, log: Log): null {
  if (state.kind !== "ready") return null;
  const { kernels, scheme, threads, contextSize } = state.model;
  log("info", "ready", { model: name, kernels, scheme, threads, contextSize });
  return null;
}

/** The first SIGINT or SIGTERM asks the server to end, the second ends the process. */
class StopSignal {
  readonly requested: Promise<number>;
  readonly #removals: (() => void)[];

  constructor(io: Io) {
    const { promise, resolve } = Promise.withResolvers<number>();
    let isAsked = false;
    const ask = (code: number) => () => {
      if (isAsked) io.exit(code);
      isAsked = true;
      resolve(code);
    };
    this.requested = promise;
    this.#removals = [
      io.onInterrupt(ask(EXIT_INTERRUPTED)),
      io.onTerminate(ask(EXIT_TERMINATED)),
    ];
  }

  [Symbol.dispose](): void {
    for (const remove of this.#removals) remove();
  }
}

/** Who does not read the log can't keep the server from ending. */
const FLUSH_MS = 1_000;

/** All requests have ended: what is still open are idle connections. */
const CLOSE_MS = 1_000;

async function close(server: RunningServer): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), CLOSE_MS);
  });
  const ended = await Promise.race([server.stop(), late]);
  clearTimeout(timer);
  if (ended === "late") await server.abort();
}

/** Native threads must be gone before the process ends. Why it was not loaded is told elsewhere. */
async function dispose({ loaded }: ModelHost): Promise<void> {
  const model = await loaded.catch(() => null);
  await model?.[Symbol.asyncDispose]();
}
