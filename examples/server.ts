/** A question to OpenAI's API, without a socket: `deno run -A examples/server.ts [model]` */
import process from "node:process";
import { createApp, DEFAULT_API_CONFIG, Metrics, ModelHost } from "../api/mod.ts";
import { loadModel } from "../runtime/mod.ts";

const host = new ModelHost("story", (onProgress) => loadModel(process.argv[2], { onProgress }));
await using _model = await host.loaded;
const metrics = new Metrics();
const app = createApp({ host, config: DEFAULT_API_CONFIG, observer: metrics.observer }, {
  metrics,
});
const response = await app.request("http://127.0.0.1/v1/completions", {
  method: "POST",
  headers: { "content-type": "application/json", host: "127.0.0.1" },
  body: JSON.stringify({ prompt: "Once upon a time", max_tokens: 8, temperature: 0 }),
});
console.log((await response.json()).choices[0].text);
