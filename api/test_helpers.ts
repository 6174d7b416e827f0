/** The whole application on a model, without sockets, for the tests of its routes. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { Model } from "../runtime/types.ts";
import { createApp } from "./app.ts";
import { ModelHost } from "./host.ts";
import { type ApiConfig, type CompletionObserver, DEFAULT_API_CONFIG } from "./services.ts";

type Ended = Parameters<CompletionObserver["ended"]>[0];

/** The same model, but for some members. */
export function overriding(model: Model, members: Readonly<Record<string, unknown>>): Model {
  return new Proxy(model, {
    get(target, name) {
      if (typeof name === "string" && name in members) return members[name];
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

export interface TestApp {
  app: OpenAPIHono;
  /** What the observer was told of completions that ended. */
  ended: Ended[];
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  get(path: string): Promise<Response>;
  /** The JSON of an answer that must have this status, and be what /openapi.json says. */
  json(path: string, body: unknown, status?: number): Promise<Json>;
  /** The events of a stream, each as /openapi.json says. */
  events(path: string, body: unknown): Promise<SseEvent[]>;
}

// What clients see has no types of ours.
// deno-lint-ignore no-explicit-any
export type Json = any;

/** Serves a model as `story`. */
export async function testApp(model: Model, config: Partial<ApiConfig> = {}): Promise<TestApp> {
  const host = new ModelHost("story", () => Promise.resolve(model));
  await host.loaded;
  const ended: Ended[] = [];
  const observer = {
    firstToken: () => {},
    tokens: () => {},
    ended: (usage: Ended) => void ended.push(usage),
  };
  const app = createApp({ host, config: { ...DEFAULT_API_CONFIG, ...config }, observer });
  const post = async (path: string, body: unknown, init: RequestInit = {}) =>
    await app.request(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  const documented = document ??= documentOf(app);
  return {
    app,
    ended,
    post,
    get: async (path) => await app.request(path),
    json: async (path, body, status = 200) => {
      const response = await post(path, body);
      const text = await response.text();
      if (response.status !== status) throw new Error(`${path}: ${response.status} ${text}`);
      const json = JSON.parse(text);
      documented.check({ path, status, contentType: "application/json" }, json);
      return json;
    },
    events: async (path, body) => {
      const events = await sseEvents(await post(path, body));
      for (const { data } of events) {
        const isError = data === "[DONE]" || data.error !== undefined || data.type === "error";
        const place = { path, status: 200, contentType: "text/event-stream" };
        if (!isError) documented.check(place, data);
      }
      return events;
    },
  };
}

/** All apps have the same. */
let document: ReturnType<typeof documentOf> | null = null;

interface Place {
  path: string;
  status: number;
  contentType: string;
}

/** Checks answers against the document that clients see. */
function documentOf(app: OpenAPIHono) {
  const paths: Json = app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: { title: "Trilith", version: "0" },
  });
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  ajv.addSchema(paths, "document");
  const pointer = (keys: (string | number)[]) =>
    keys.map((key) => encodeURIComponent(String(key).replaceAll("~", "~0").replaceAll("/", "~1")))
      .join("/");
  return {
    check({ path, status, contentType }: Place, json: unknown): void {
      const keys = ["paths", path, "post", "responses", status, "content", contentType, "schema"];
      const validate = ajv.getSchema(`document#/${pointer(keys)}`);
      if (validate === undefined) throw new Error(`${path} ${status} is not documented`);
      if (validate(json)) return;
      const errors = ajv.errorsText(validate.errors);
      throw new Error(`${path} ${status} is not as documented: ${errors}: ${JSON.stringify(json)}`);
    },
  };
}

export interface SseEvent {
  event: string | null;
  /** Parsed, except for `[DONE]`. */
  data: Json;
}

/** All events of a stream, comments left out. */
export async function sseEvents(response: Response): Promise<SseEvent[]> {
  const type = response.headers.get("Content-Type");
  if (type !== "text/event-stream") throw new Error(`${type}: ${await response.text()}`);
  const blocks = (await response.text()).split("\n\n").filter((block) => block !== "");
  return blocks.filter((block) => !block.startsWith(":")).map((block) => {
    const event = /^event: (.*)$/m.exec(block)?.[1] ?? null;
    const data = /^data: (.*)$/m.exec(block)![1];
    return { event, data: data === "[DONE]" ? data : JSON.parse(data) };
  });
}

/** Waits for something to become true; a test that waits in vain fails and does not hang. */
export async function until(isTrue: () => boolean): Promise<void> {
  for (let left = 20_000; !isTrue(); left--) {
    if (left === 0) throw new Error(`Still not true: ${isTrue}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
