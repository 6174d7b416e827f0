import type { ModelHost } from "./host.ts";

/** What the routes need to know of how the server was started. */
export interface ApiConfig {
  /** Silent streams get a comment so often, as proxies cut them otherwise. */
  keepAliveMs: number;
  /** Most choices (`n`), or prompts, of one request. */
  maxChoices: number;
  /** Further names that clients may call the model by. */
  aliases: readonly string[];
}

/** What routes get where the caller says nothing. */
export const DEFAULT_API_CONFIG: ApiConfig = {
  keepAliveMs: 15_000,
  maxChoices: 16,
  aliases: [],
};

/** Hears of every completion, whichever dialect asked for it: metrics and logs. */
export interface CompletionObserver {
  /** Milliseconds from the request to its first token. */
  firstToken(ms: number): void;
  /** Tokens that came together, and the milliseconds since the ones before. */
  tokens(count: number, gapMs: number): void;
  /** A completion has ended, for whatever reason. */
  ended(usage: {
    /** Milliseconds that it waited for its first step. */
    queueMs?: number;
    promptTokens: number;
    cachedTokens: number;
    completionTokens: number;
    /** "stop", "length", "abort", "tool_calls", or "error". */
    reason: string;
  }): void;
}

/** What every dialect's routes get. */
export interface Services {
  /** The model, as soon as it is loaded. */
  host: ModelHost;
  /** Limits and names. */
  config: ApiConfig;
  /** Hears of completions. */
  observer: CompletionObserver;
}
