/**
 * One way to add a route that takes JSON: its zod schemas check the body and describe it in
 * /openapi.json, so that the document can't differ from what is checked.
 */
import { createRoute, type OpenAPIHono, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { ApiError } from "./errors.ts";
import { invalidBody } from "./invalid_body.ts";
import { Turns } from "./turns.ts";

/** What the answers of a dialect's routes have in common. */
export interface Dialect {
  /** The heading of its routes in the documentation. */
  tag: string;
  /** The body of answers that are no success. */
  errorSchema: z.ZodType;
  /** curl sends forms unless it is told otherwise, and Ollama's examples do not tell it. */
  readsUntypedJson?: boolean;
}

/** Statuses that any route may answer with, and why. */
const ERRORS = {
  400: "The request is malformed, or asks for something that is not possible",
  401: "The API key is missing or wrong",
  403: "The host or origin is not allowed",
  404: "There is no such model",
  408: "The body took too long",
  413: "The body is too large",
  415: "The body is not JSON",
  429: "Too many requests: wait for Retry-After seconds",
  500: "The server failed",
  503: "The model still loads, or the queue is full: wait for Retry-After seconds",
  504: "The request took longer than the server allows",
};

export interface RouteSpec<S extends z.ZodType> {
  path: string;
  summary: string;
  description?: string;
  body: S;
  answer: z.ZodType;
  /** What is sent instead of `answer` when the client asks for a stream. */
  stream?: { contentType: string; schema: z.ZodType };
}

export type Handler<T> = (body: T, c: Context) => Response | Promise<Response>;

/** Of all routes: there is one event loop. */
const turns = new Turns();

/** POST with a JSON body. */
export function addPost<S extends z.ZodType>(
  app: OpenAPIHono,
  dialect: Dialect,
  spec: RouteSpec<S>,
  handle: Handler<z.output<S>>,
): void {
  const { path, summary, description, body, answer, stream } = spec;
  const streamed = stream === undefined ? {} : { [stream.contentType]: { schema: stream.schema } };
  const request = { body: { required: true, content: { "application/json": { schema: body } } } };
  app.openAPIRegistry.registerPath(createRoute({
    method: "post",
    path,
    summary,
    description,
    tags: [dialect.tag],
    request,
    responses: {
      200: {
        description: "The answer",
        content: { "application/json": { schema: answer }, ...streamed },
      },
      ...errorResponses(dialect),
    },
  }));
  app.post(path, async (c) => handle(await readBody(c, body, dialect), c));
}

export interface GetSpec {
  /** With parameters as `{name}`, described by `params`. */
  path: string;
  /** The path as Hono matches it, where a parameter is more than one segment. */
  routingPath?: string;
  summary: string;
  params?: z.ZodObject;
  answer: z.ZodType;
}

export function addGet(
  app: OpenAPIHono,
  dialect: Dialect,
  { path, routingPath, summary, params, answer }: GetSpec,
  handle: (c: Context) => Response | Promise<Response>,
): void {
  const route = createRoute({
    method: "get",
    path,
    summary,
    tags: [dialect.tag],
    ...(params === undefined ? {} : { request: { params } }),
    responses: {
      200: { description: "The answer", content: { "application/json": { schema: answer } } },
      ...errorResponses(dialect),
    },
  });
  app.openAPIRegistry.registerPath(route);
  app.get(routingPath ?? route.getRoutingPath(), handle);
}

function errorResponses({ errorSchema }: Dialect) {
  const content = { "application/json": { schema: errorSchema } };
  return Object.fromEntries(
    Object.entries(ERRORS).map(([status, description]) => [status, { description, content }]),
  );
}

/** @throws {ApiError} 415 if it is not called JSON, 400 if it is none, or not what the schema says. */
async function readBody<S extends z.ZodType>(
  c: Context,
  schema: S,
  dialect: Dialect,
): Promise<z.output<S>> {
  checkContentType(c, dialect);
  const text = await c.req.text();
  await turns.take();
  const parsed = schema.safeParse(parseBody(text));
  if (parsed.success) return parsed.data;
  throw invalidBody(parsed.error);
}

const JSON_TYPE = /^application\/([\w.+-]+\+)?json\s*(;|$)/i;

/**
 * Pages of other origins can send forms and plain text without asking, but not JSON: where a browser
 * names an origin, the type is never overlooked.
 */
function checkContentType(c: Context, { readsUntypedJson = false }: Dialect): void {
  const type = c.req.header("Content-Type") ?? "";
  if (JSON_TYPE.test(type)) return;
  if (readsUntypedJson && c.req.header("Origin") === undefined) return;
  throw new ApiError(
    415,
    "invalid_request_error",
    `Cannot read the body as its Content-Type must be application/json: current value is ${
      JSON.stringify(type.slice(0, 80))
    }`,
  );
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError(
      400,
      "invalid_request_error",
      `Cannot read the body as it is not valid JSON: ${(error as Error).message}`,
      { code: "invalid_json" },
    );
  }
}
