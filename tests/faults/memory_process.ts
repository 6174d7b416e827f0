/**
 * A server and its clients in one process, which collects its garbage before it looks at its memory:
 *
 *     deno run -A --v8-flags=--expose-gc tests/faults/memory_process.ts 10000
 *
 * Prints a JSON array of the memory after each fifth of the requests.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { createApp } from "../../api/app.ts";
import { ModelHost } from "../../api/host.ts";
import { Metrics } from "../../api/metrics.ts";
import { startServer } from "../../api/server.ts";
import { DEFAULT_API_CONFIG } from "../../api/services.ts";
import { loadModel } from "../../runtime/mod.ts";

/** Bytes. */
export interface Memory {
  heap: number;
  resident: number;
}

const AT_ONCE = 16;
const PARTS = 5;

/** Whole answers and streams in turn, each of another text. */
async function request(url: string, i: number): Promise<void> {
  const isStream = i % 2 === 0;
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      messages: [{ role: "user", content: `Dog number ${i}` }],
      max_tokens: 1,
      stream: isStream,
    }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.match(text, isStream ? /\ndata: \[DONE\]\n\n$/ : /"usage":/);
}

async function requests(url: string, first: number, count: number): Promise<void> {
  let next = first;
  const work = async () => {
    while (next < first + count) await request(url, next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

function memory(): Memory {
  const { gc } = globalThis as unknown as { gc: () => void };
  // What finalizers let go of is collected the second time.
  gc();
  gc();
  const { heapUsed, rss } = process.memoryUsage();
  return { heap: heapUsed, resident: rss };
}

async function main(count: number): Promise<void> {
  const host = new ModelHost("story", () => loadModel(undefined, { threads: 1 }));
  await using _model = await host.loaded;
  const metrics = new Metrics();
  const services = { host, config: DEFAULT_API_CONFIG, observer: metrics.observer };
  const app = createApp(services, { metrics });
  const place = { host: "127.0.0.1", port: 0 };
  const server = await startServer(place, (request, info) => app.fetch(request, { ...info }));
  assert.ok("port" in server.place);
  const url = `http://127.0.0.1:${server.place.port}`;
  const seen: Memory[] = [];
  const part = Math.ceil(count / PARTS);
  for (let i = 0; i < PARTS; i++) {
    await requests(url, i * part, part);
    seen.push(memory());
  }
  await server.abort();
  console.log(JSON.stringify(seen));
}

await main(Number(process.argv[2]));
