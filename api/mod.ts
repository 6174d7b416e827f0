/**
 * The HTTP server without a socket: an application that answers requests of OpenAI's, Anthropic's and
 * Ollama's clients. `examples/server.ts` runs it.
 *
 * @module
 */
export { createApp } from "./app.ts";
export type { LagMonitor, Look } from "./event_loop.ts";
export { type HostState, ModelHost } from "./host.ts";
export { Lifecycle } from "./lifecycle.ts";
export { type Log, LOG_LEVELS, type LogFields, type LogLevel } from "./log.ts";
export { Metrics } from "./metrics.ts";
export type { AppOptions } from "./options.ts";
export {
  type ApiConfig,
  type CompletionObserver,
  DEFAULT_API_CONFIG,
  type Services,
} from "./services.ts";
