/** How each dialect's clients expect to be told what is wrong. */
import { type ApiError, type ErrorType, openAiErrorBody } from "./errors.ts";

export type Dialect = "openai" | "responses" | "anthropic" | "ollama";

/** The dialect that a path belongs to: OpenAI's where none is known. */
export function dialectOf(path: string): Dialect {
  if (/^\/v1\/messages(\/|$)/.test(path)) return "anthropic";
  if (/^\/api(\/|$)/.test(path)) return "ollama";
  return /^\/v1\/responses(\/|$)/.test(path) ? "responses" : "openai";
}

const ANTHROPIC_TYPES: Record<ErrorType, string> = {
  invalid_request_error: "invalid_request_error",
  authentication_error: "authentication_error",
  permission_error: "permission_error",
  not_found_error: "not_found_error",
  rate_limit_error: "rate_limit_error",
  unavailable_error: "overloaded_error",
  server_error: "api_error",
};

function anthropicErrorBody({ status, type, message }: ApiError) {
  const name = status === 413 ? "request_too_large" : ANTHROPIC_TYPES[type];
  return { type: "error" as const, error: { type: name, message } };
}

/** The body of a response that is not a success. */
export function errorBodyOf(path: string, failure: ApiError): Record<string, unknown> {
  switch (dialectOf(path)) {
    case "anthropic":
      return anthropicErrorBody(failure);
    case "ollama":
      return { error: failure.message };
    default:
      return openAiErrorBody(failure);
  }
}

/** What ends a stream that has begun as a success and can't be finished. */
export function errorFrameOf(path: string, failure: ApiError): string {
  const dialect = dialectOf(path);
  if (dialect === "ollama") return `${JSON.stringify(errorBodyOf(path, failure))}\n`;
  if (dialect === "openai") return `data: ${JSON.stringify(errorBodyOf(path, failure))}\n\n`;
  const { message, param, code, type } = failure;
  const body = dialect === "responses"
    ? { type: "error", code: code ?? type, message, param }
    : errorBodyOf(path, failure);
  return `event: error\ndata: ${JSON.stringify(body)}\n\n`;
}
