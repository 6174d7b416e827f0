/** The web chat over a server that answers what a test tells it to, whatever it is asked. */
import { OpenAPIHono } from "@hono/zod-openapi";
import { streamSSE } from "hono/streaming";
import type { Services } from "../api/services.ts";
import { addWebRoutes } from "../api/web/routes.ts";

/** Pieces of an answer. A promise among them is waited for; an error ends the stream as a server does. */
export type Script = readonly (string | Promise<unknown> | Error)[];

export class ScriptedServer implements AsyncDisposable {
  /** What `/health` says. */
  isLoading = false;
  /** Without it, nothing is known of the context and the samplers. */
  hasProps = true;
  /** A chat is refused so where this is set. */
  refusal: { status: 400 | 429 | 503; message: string } | null = null;
  /** The key that is needed, if any. */
  key: string | null = null;
  script: Script = ["Hello"];
  finishReason = "stop";
  /** Bodies of the chats that were asked for. */
  readonly asked: Record<string, unknown>[] = [];
  /** Chats whose client left before their end. */
  aborted = 0;
  readonly url: string;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  /** @param port 0: any that is free. */
  constructor(port = 0) {
    const app = this.#app();
    this.#server = Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, app.fetch);
    this.url = `http://127.0.0.1:${this.#server.addr.port}/`;
  }

  get port(): number {
    return this.#server.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  #app(): OpenAPIHono {
    const app = new OpenAPIHono();
    addWebRoutes(app, {} as Services);
    app.get(
      "/health",
      (c) => this.isLoading ? c.json(LOADING, 503) : c.json({ status: "ok" }),
    );
    app.use("/*", async (c, next) => {
      const isAllowed = this.key === null || c.req.header("authorization") === `Bearer ${this.key}`;
      if (!isAllowed) return c.json(errorOf("This server needs an API key"), 401);
      await next();
    });
    app.get("/v1/models", (c) => c.json({ data: [{ id: "scripted" }] }));
    app.get(
      "/props",
      (c) =>
        this.hasProps
          ? c.json({ contextSize: 100, defaults: { doSample: true, topK: 40 } })
          : c.json(errorOf("Not found"), 404),
    );
    app.post("/apply-template", async (c) => {
      const { messages } = await c.req.json();
      return c.json({
        prompt: messages.map(({ content }: { content: string }) => content).join("|"),
      });
    });
    app.post("/tokenize", async (c) => c.json({ tokens: [...(await c.req.json()).content] }));
    for (const path of ["/v1/chat/completions", "/v1/completions"]) {
      app.post(path, async (c) => {
        const body = await c.req.json();
        this.asked.push(body);
        if (this.refusal !== null) {
          return c.json(errorOf(this.refusal.message), this.refusal.status);
        }
        return streamSSE(c, async (stream) => {
          stream.onAbort(() => void this.aborted++);
          for await (const data of this.#chunks("messages" in body)) {
            await stream.writeSSE({ data });
          }
        });
      });
    }
    return app;
  }

  async *#chunks(isChat: boolean): AsyncGenerator<string> {
    const chunk = (text: string, finish_reason: string | null = null) =>
      JSON.stringify({
        choices: [{
          index: 0,
          finish_reason,
          ...(isChat ? { delta: { content: text } } : { text }),
        }],
      });
    for (const piece of this.script) {
      if (piece instanceof Error) return yield JSON.stringify(errorOf(piece.message));
      if (typeof piece === "string") yield chunk(piece);
      else await piece;
    }
    yield chunk("", this.finishReason);
    const usage = {
      prompt_tokens: 10,
      completion_tokens: 15,
      prompt_tokens_details: { cached_tokens: 4 },
    };
    yield JSON.stringify({ choices: [], usage, timings: { predicted_per_second: 123.4 } });
    yield "[DONE]";
  }
}

const LOADING = {
  status: "loading",
  progress: { message: "Packing weights", done: 1, total: 3 },
};

const errorOf = (message: string) => ({
  error: { message, type: "error", param: null, code: null },
});
