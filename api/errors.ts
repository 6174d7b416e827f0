import { ChatTemplateError, QueueFullError } from "../runtime/errors.ts";
import { GrammarError } from "../runtime/grammar/types.ts";

/** OpenAI's names of what can be wrong. */
export type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "rate_limit_error"
  | "unavailable_error"
  | "server_error";

export interface ErrorDetails {
  /** The request's field that is wrong. */
  param?: string | null;
  code?: string | null;
  retryAfterSeconds?: number;
  cause?: unknown;
}

/** An answer that is not a success. Each dialect writes it in its own shape. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly param: string | null;
  readonly code: string | null;
  readonly retryAfterSeconds: number | null;

  constructor(
    readonly status: number,
    readonly type: ErrorType,
    message: string,
    { param = null, code = null, retryAfterSeconds, cause }: ErrorDetails = {},
  ) {
    super(message, { cause });
    this.param = param;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds ?? null;
  }
}

/** Seconds after which a full queue is worth another try. */
const QUEUE_RETRY_SECONDS = 5;

/**
 * What a request's failure means to its client: the runtime's own errors about options and prompts are
 * the client's, everything else is ours, and its text stays in the log.
 */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof QueueFullError) {
    return new ApiError(503, "unavailable_error", error.message, {
      code: "queue_full",
      retryAfterSeconds: QUEUE_RETRY_SECONDS,
      cause: error,
    });
  }
  if (isClientError(error)) {
    return new ApiError(400, "invalid_request_error", error.message, { cause: error });
  }
  return new ApiError(500, "server_error", "The server failed: its log has the reason", {
    cause: error,
  });
}

function isClientError(error: unknown): error is Error {
  return error instanceof RangeError || error instanceof GrammarError ||
    error instanceof ChatTemplateError;
}

/** The body that OpenAI's clients read. */
export function openAiErrorBody({ message, type, param, code }: ApiError) {
  return { error: { message, type, param, code } };
}
