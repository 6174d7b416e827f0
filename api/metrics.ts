/** What Prometheus reads. */
import process from "node:process";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EngineStatus, Model } from "../runtime/types.ts";
import type { LagMonitor } from "./event_loop.ts";
import type { ModelHost } from "./host.ts";
import { currentRecord } from "./request_record.ts";
import type { CompletionObserver } from "./services.ts";

const REQUEST_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const FIRST_TOKEN_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const LAG_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

/** Numbers of one server. Nothing here is shared between servers, or with the process. */
export class Metrics {
  /** What `/metrics` prints, for a collector of the caller's own. */
  readonly registry: Registry = new Registry();
  readonly #requests = this.#counter("http_requests_total", "Requests that ended", [
    "method",
    "route",
    "status",
  ]);
  readonly #requestSeconds = this.#histogram(
    "http_request_duration_seconds",
    "From a request's beginning to the end of its response",
    REQUEST_SECONDS,
    ["route"],
  );
  readonly #firstTokenSeconds = this.#histogram(
    "time_to_first_token_seconds",
    "From a request to its first token",
    FIRST_TOKEN_SECONDS,
  );
  readonly #tokenSeconds = this.#histogram(
    "inter_token_seconds",
    "Between two tokens of a completion",
    TOKEN_SECONDS,
  );
  readonly #queueSeconds = this.#histogram(
    "queue_seconds",
    "From a request to the first step that it took part in",
    FIRST_TOKEN_SECONDS,
  );
  readonly #completions = this.#counter("completions_total", "Completions by how they ended", [
    "reason",
  ]);
  readonly #promptTokens = this.#counter("prompt_tokens_total", "Prompt tokens, cached ones too");
  readonly #cachedTokens = this.#counter("cached_tokens_total", "Prompt tokens found in the cache");
  readonly #completionTokens = this.#counter("completion_tokens_total", "Tokens that came out");
  /** Calls of the completion route in hand, to be told of each completion. */
  readonly observer: CompletionObserver = {
    firstToken: (ms) => {
      this.#firstTokenSeconds.observe(ms / 1000);
      const record = currentRecord();
      if (record !== null) record.timeToFirstTokenMs ??= ms;
    },
    tokens: (count, gapMs) => {
      for (let token = 0; token < count; token++) {
        this.#tokenSeconds.observe(gapMs / count / 1000);
      }
    },
    ended: (usage) => this.#ended(usage),
  };

  constructor() {
    this.#processGauges();
  }

  /** Counts an answered request, by its route and not by its path. */
  requestEnded(request: { method: string; route: string; status: number; ms: number }): void {
    const { method, route, status, ms } = request;
    this.#requests.inc({ method, route, status: String(status) });
    this.#requestSeconds.observe({ route }, ms / 1000);
  }

  /** What the model and the engine are doing, looked up when somebody reads the metrics. */
  watchModel(host: ModelHost): void {
    const modelOf = () => host.state.kind === "ready" ? host.state.model : null;
    this.#gauge("model_loaded", "1 if the model is ready", [], (gauge) => {
      gauge.set(modelOf() === null ? 0 : 1);
    });
    this.#gauge("model_info", "The model and its kernels", MODEL_LABELS, (gauge) => {
      const model = modelOf();
      gauge.reset();
      if (model !== null) gauge.set(labelsOf(host.name, model), 1);
    });
    for (const [name, help, read] of ENGINE_GAUGES) {
      this.#gauge(name, help, [], (gauge) => gauge.set(read(modelOf()?.status() ?? null)));
    }
    this.#gauge("kv_blocks", "Blocks of keys and values by state", ["state"], (gauge) => {
      const { used = 0, cached = 0, free = 0 } = modelOf()?.status().kvBlocks ?? {};
      for (const [state, count] of Object.entries({ used, cached, free })) {
        gauge.set({ state }, count);
      }
    });
    this.#engineTotals(() => modelOf()?.status() ?? null);
  }

  /** Counts lines that could not be written. */
  watchLog(writer: { readonly lost: number }): void {
    this.#gauge("log_lines_lost", "Log lines that could not be written", [], (gauge) => {
      gauge.set(writer.lost);
    });
  }

  /** Watches how late timers fire. */
  watchEventLoop(monitor: LagMonitor): void {
    const lag = this.#histogram(
      "event_loop_lag_seconds",
      "How late a timer fired that fires all the time",
      LAG_SECONDS,
    );
    const most = { lag: 0, own: 0 };
    monitor.onLook = ({ lagMs, ownMs }) => {
      lag.observe(lagMs / 1000);
      most.lag = Math.max(most.lag, lagMs);
      most.own = Math.max(most.own, ownMs ?? NaN);
    };
    this.#gauge("event_loop_lag_max_seconds", "The most since it was last read", [], (gauge) => {
      gauge.set(most.lag / 1000);
      most.lag = 0;
    });
    const own =
      "The most of it that its own work caused, since it was last read; else other threads'";
    this.#gauge("event_loop_own_lag_max_seconds", own, [], (gauge) => {
      gauge.set(most.own / 1000);
      most.own = 0;
    });
  }

  #ended(usage: Parameters<CompletionObserver["ended"]>[0]): void {
    this.#completions.inc({ reason: usage.reason });
    this.#promptTokens.inc(usage.promptTokens);
    this.#cachedTokens.inc(usage.cachedTokens);
    this.#completionTokens.inc(usage.completionTokens);
    if (usage.queueMs !== undefined) this.#queueSeconds.observe(usage.queueMs / 1000);
    const record = currentRecord();
    if (record === null) return;
    record.promptTokens += usage.promptTokens;
    record.cachedTokens += usage.cachedTokens;
    record.completionTokens += usage.completionTokens;
    record.reason = usage.reason;
  }

  /** The engine counts for itself: its totals are set as they are, and never go down. */
  #engineTotals(status: () => EngineStatus | null): void {
    for (const [name, help, read] of ENGINE_TOTALS) {
      new Counter({
        name: `trilith_${name}`,
        help,
        registers: [this.registry],
        collect() {
          const now = status();
          this.reset();
          this.inc(now === null ? 0 : read(now));
        },
      });
    }
  }

  #processGauges(): void {
    const startSeconds = Date.now() / 1000;
    this.#gauge("process_start_time_seconds", "When it was started, in Unix time", [], (gauge) => {
      gauge.set(startSeconds);
    });
    this.#gauge("process_resident_memory_bytes", "Memory that it occupies", [], (gauge) => {
      gauge.set(process.memoryUsage().rss);
    });
    this.#gauge("process_heap_bytes", "Memory of JavaScript's objects", [], (gauge) => {
      gauge.set(process.memoryUsage().heapUsed);
    });
  }

  /** Tells which versions run. */
  watchBuild(version: string, runtime: string): void {
    this.#gauge("build_info", "Versions", ["version", "runtime"], (gauge) => {
      gauge.set({ version, runtime }, 1);
    });
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: `trilith_${name}`, help, labelNames, registers: [this.registry] });
  }

  #histogram(name: string, help: string, buckets: number[], labelNames: string[] = []): Histogram {
    const registers = [this.registry];
    return new Histogram({ name: `trilith_${name}`, help, labelNames, buckets, registers });
  }

  #gauge(name: string, help: string, labelNames: string[], read: (gauge: Gauge) => void): void {
    new Gauge({
      name: name.startsWith("process_") ? name : `trilith_${name}`,
      help,
      labelNames,
      registers: [this.registry],
      collect() {
        read(this);
      },
    });
  }
}

const MODEL_LABELS = ["model", "kernels", "scheme", "threads", "context_size"];

function labelsOf(name: string, model: Model): Record<string, string | number> {
  const { kernels, scheme, threads, contextSize } = model;
  return { model: name, kernels, scheme, threads, context_size: contextSize };
}

const ENGINE_GAUGES: [string, string, (status: EngineStatus | null) => number][] = [
  ["sequences_running", "Sequences that run", (status) => status?.slots.length ?? 0],
  ["sequences_waiting", "Sequences that wait", (status) => status?.waiting ?? 0],
];

const ENGINE_TOTALS: [string, string, (status: EngineStatus) => number][] = [
  ["engine_steps_total", "Native steps", ({ totals }) => totals.steps],
  ["engine_step_seconds_total", "Time in them", ({ totals }) => totals.stepMs / 1000],
  ["engine_prefill_tokens_total", "Prompt tokens computed", ({ totals }) => totals.prefillTokens],
  ["engine_cached_tokens_total", "Prompt tokens not computed", ({ totals }) => totals.cachedTokens],
  ["engine_decode_tokens_total", "Tokens decoded", ({ totals }) => totals.decodeTokens],
  ["preemptions_total", "Sequences that gave up their memory", ({ totals }) => totals.preemptions],
];
