/** Says in one line what is wrong with a body. */
import type { z } from "@hono/zod-openapi";
import { ApiError } from "./errors.ts";

type Issue = z.core.$ZodIssue;

/** The first thing that is wrong, as an answer. */
export function invalidBody(error: z.ZodError): ApiError {
  const { path, message } = deepest(error.issues[0], []);
  const param = paramOf(path);
  const where = param === "" ? "the body" : param;
  return new ApiError(
    400,
    "invalid_request_error",
    `Cannot read the request as ${where} is not what it must be: ${message}`,
    { param: param === "" ? null : param },
  );
}

interface Place {
  path: PropertyKey[];
  message: string;
}

/** Where several shapes are allowed, what is wrong is said of the one that fits the furthest. */
function deepest(issue: Issue, base: readonly PropertyKey[]): Place {
  const path = [...base, ...issue.path];
  const isUnion = issue.code === "invalid_union" && issue.errors.length > 0;
  // A union with a message of its own is best explained by it.
  if (!isUnion || issue.message !== "Invalid input") return { path, message: issue.message };
  const branches = issue.errors.filter((issues) => issues.length > 0)
    .map((issues) => deepest(issues[0], path));
  const best = branches.reduce((a, b) => b.path.length > a.path.length ? b : a);
  if (best.path.length > path.length) return best;
  return { path, message: [...new Set(branches.map(({ message }) => message))].join(", or ") };
}

/** `messages[0].content` */
function paramOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === "number"
        ? `${text}[${key}]`
        : text === ""
        ? String(key)
        : `${text}.${String(key)}`,
    "",
  );
}
