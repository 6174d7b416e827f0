/** What /health, /metrics, /props, /slots and /version say while a model comes, works and goes. */
import assert from "node:assert/strict";
import process from "node:process";
import { loadModel } from "../../runtime/mod.ts";
import type { Model, Progress } from "../../runtime/types.ts";
import { createApp } from "../app.ts";
import { LagMonitor, type Look } from "../event_loop.ts";
import { ModelHost } from "../host.ts";
import { Lifecycle } from "../lifecycle.ts";
import { Metrics } from "../metrics.ts";
import { DEFAULT_API_CONFIG } from "../services.ts";

interface Scene {
  json(path: string, init?: RequestInit): Promise<Answer>;
  metrics: Metrics;
  lifecycle: Lifecycle;
  app: ReturnType<typeof createApp>;
}

interface Answer {
  status: number;
  // deno-lint-ignore no-explicit-any -- what clients see has no types of ours
  body: any;
}

function sceneOf(host: ModelHost): Scene {
  const metrics = new Metrics();
  const lifecycle = new Lifecycle();
  const services = { host, config: DEFAULT_API_CONFIG, observer: metrics.observer };
  const app = createApp(services, { metrics, lifecycle });
  const json = async (path: string, init?: RequestInit) => {
    const response = await app.request(path, init);
    return { status: response.status, body: await response.json() };
  };
  return { json, metrics, lifecycle, app };
}

async function withStory(use: (scene: Scene, model: Model) => Promise<void>): Promise<void> {
  await using model = await loadModel(undefined, { threads: 1 });
  const host = new ModelHost("story", () => Promise.resolve(model));
  await host.loaded;
  await use(sceneOf(host), model);
}

/** Numbers of Prometheus's text by name and labels; what is malformed fails. */
async function numbersOf({ app }: Scene): Promise<Map<string, number>> {
  const response = await app.request("/metrics");
  assert.match(response.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  const lines = (await response.text()).split("\n");
  const numbers = new Map<string, number>();
  for (const line of lines.filter((line) => line !== "" && !line.startsWith("#"))) {
    const [, name, value] = /^([a-z_]+(?:\{(?:\w+="[^"]*",?)*\})?) (\S+)$/.exec(line) ??
      assert.fail(line);
    assert.ok(!Number.isNaN(Number(value.replace("+Inf", "Infinity"))), line);
    numbers.set(name, Number(value));
  }
  return numbers;
}

const CHAT = {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    messages: [{ role: "user", content: "Once upon a time" }],
    max_tokens: 8,
    ignore_eos: true,
    temperature: 0,
  }),
};

Deno.test("health: loading with its progress, then ready, then draining", async () => {
  const loaded = Promise.withResolvers<Model>();
  let report: (progress: Progress) => void = () => {};
  const host = new ModelHost("story", (onProgress) => {
    report = onProgress;
    return loaded.promise;
  });
  const { json, lifecycle } = sceneOf(host);
  assert.equal((await json("/health")).body.progress, null);
  report({ phase: "pack", message: "Packing weights", done: 1, total: 4, unit: "bytes" });
  const { status, body } = await json("/v1/health");
  assert.equal(status, 503);
  assert.equal(body.status, "loading");
  assert.equal(body.error.type, "unavailable_error");
  assert.deepEqual(body.progress.total, 4);
  for (const path of ["/props", "/slots"]) assert.equal((await json(path)).status, 503);
  loaded.resolve({} as Model);
  await host.loaded;
  assert.deepEqual(await json("/health"), { status: 200, body: { status: "ok" } });
  lifecycle.stopAccepting();
  assert.equal((await json("/health")).body.status, "draining");
});

Deno.test("health: a model that could not be loaded", async () => {
  const host = new ModelHost("story", () => Promise.reject(new Error("no such file")));
  await host.loaded.catch(() => {});
  const { status, body } = await sceneOf(host).json("/health");
  assert.equal(status, 503);
  assert.equal(body.status, "failed");
  assert.doesNotMatch(JSON.stringify(body), /no such file/);
});

Deno.test("props: the model and its kernels", async () => {
  await withStory(async ({ json }, model) => {
    const { body } = await json("/props");
    assert.equal(body.model, "story");
    assert.equal(body.contextSize, 512);
    assert.equal(body.vocabSize, 2048);
    assert.equal(body.kernels, model.kernels);
    assert.equal(body.chatTemplate, model.chatTemplate);
    assert.ok(body.jsonSchemaKeywords.includes("properties"));
    assert.ok(body.totals.steps >= 0);
  });
});

Deno.test("slots: a sequence is there while it runs", async () => {
  await withStory(async ({ app, json }) => {
    const before = (await json("/slots")).body;
    assert.deepEqual([before.slots, before.waiting], [[], 0]);
    assert.ok(before.maxSequences > 0);
    const body = { ...JSON.parse(CHAT.body), max_tokens: 400, stream: true };
    const response = await app.request("/v1/chat/completions", {
      ...CHAT,
      body: JSON.stringify(body),
    });
    const reader = response.body!.getReader();
    await reader.read();
    await reader.read();
    const during = (await json("/slots")).body;
    assert.equal(during.slots.length, 1);
    assert.ok(during.slots[0].promptTokens > 0);
    assert.ok(during.kvBlocks.used > 0);
    await reader.cancel();
    while ((await json("/slots")).body.slots.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
});

Deno.test("version: ours, and the runtime's", async () => {
  const { body } = await sceneOf(new ModelHost("s", () => new Promise(() => {}))).json("/version");
  assert.match(body.version, /^\d+\.\d+\.\d+$/);
  assert.equal(body.runtime, `Deno ${Deno.version.deno}`);
});

Deno.test("metrics: a completion is counted, timed, and its tokens are", async () => {
  await withStory(async (scene) => {
    const before = await numbersOf(scene);
    assert.equal(before.get("trilith_completion_tokens_total"), 0);
    assert.equal(before.get("trilith_model_loaded"), 1);
    const { body } = await scene.json("/v1/chat/completions", CHAT);
    const after = await numbersOf(scene);
    const route = 'route="/v1/chat/completions"';
    assert.equal(after.get(`trilith_http_requests_total{method="POST",${route},status="200"}`), 1);
    assert.equal(after.get(`trilith_http_request_duration_seconds_count{${route}}`), 1);
    assert.equal(after.get("trilith_completion_tokens_total"), 8);
    assert.equal(after.get("trilith_prompt_tokens_total"), body.usage.prompt_tokens);
    assert.equal(after.get('trilith_completions_total{reason="length"}'), 1);
    assert.equal(after.get("trilith_time_to_first_token_seconds_count"), 1);
    assert.equal(after.get("trilith_inter_token_seconds_count"), 7);
    assert.equal(after.get("trilith_queue_seconds_count"), 1);
    assert.equal(after.get("trilith_sequences_running"), 0);
    assert.ok(after.get("process_resident_memory_bytes")! > 1e7);
    assert.ok([...after.keys()].some((name) => name.startsWith("trilith_build_info{version=")));
  });
});

Deno.test("metrics: the engine's own totals are read anew, and blocks add up", async () => {
  await withStory(async (scene, model) => {
    await scene.json("/v1/chat/completions", CHAT);
    const numbers = await numbersOf(scene);
    const { totals, kvBlocks } = model.status();
    assert.ok(totals.steps > 0);
    assert.equal(numbers.get("trilith_engine_steps_total"), totals.steps);
    assert.equal(numbers.get("trilith_engine_decode_tokens_total"), totals.decodeTokens);
    const states = ["used", "cached", "free"];
    const blocks = states.map((state) => numbers.get(`trilith_kv_blocks{state="${state}"}`)!);
    assert.equal(blocks.reduce((a, b) => a + b), kvBlocks.total);
    assert.ok(kvBlocks.total > 0);
  });
});

Deno.test("metrics: paths and methods that clients invent make no series of their own", async () => {
  const scene = sceneOf(new ModelHost("s", () => new Promise(() => {})));
  for (let i = 0; i < 20; i++) {
    await (await scene.app.request(`/made-up-${i}`, { method: `INVENTED${i}` })).body?.cancel();
  }
  const names = [...(await numbersOf(scene)).keys()];
  const counted = names.filter((name) => name.startsWith("trilith_http_requests_total"));
  assert.equal(counted.length, 1, counted.join(", "));
});

Deno.test("event loop: what blocks it is seen, and told from what only waits for a CPU", async () => {
  using monitor = new LagMonitor();
  const looks: Look[] = [];
  monitor.onLook = (look) => looks.push(look);
  const longest = async (block: () => void) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    looks.length = 0;
    block();
    while (looks.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    return looks.reduce((a, b) => a.lagMs > b.lagMs ? a : b);
  };
  const endOf = (ms: number) => performance.now() + ms;
  const working = await longest(() => {
    for (const end = endOf(60); performance.now() < end;);
  });
  assert.ok(working.lagMs >= 30, `the longest lag was ${working.lagMs} ms`);
  assert.ok(working.ownMs === null || working.ownMs > 0);
  const asleep = await longest(() =>
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  );
  assert.ok(asleep.lagMs >= 100);
  if (process.platform === "linux") assert.ok(asleep.ownMs! < asleep.lagMs / 2);
});
