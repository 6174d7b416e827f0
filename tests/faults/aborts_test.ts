/** Clients that go away: in the queue, in prefill, while tokens come. */
import assert from "node:assert/strict";
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { randomOf } from "../../codegen/random.ts";
import { ownPrompt, promptOf } from "../../bench/server/prompts.ts";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { untilIdle } from "../server_state.ts";
import { greedyText } from "./requests.ts";

const REQUESTS = 1000;
const AT_ONCE = 40;
const SEED = 7;

const LONG = { ignore_eos: true, temperature: 1 };

/** A request that would take seconds, by the dialects in turn. */
function longRequest(i: number): [path: string, body: object] {
  const prompt = (i % 4 === 0 ? ownPrompt : promptOf)(i, 10 + i % 5 * 20);
  const messages = [{ role: "user", content: prompt }];
  const bodies: [string, object][] = [
    ["/v1/chat/completions", { messages, max_tokens: 3000, stream: true, ...LONG }],
    ["/v1/completions", { prompt, max_tokens: 3000, stream: true, ...LONG }],
    ["/v1/chat/completions", { messages, max_tokens: 3000, n: 2, ...LONG }],
    ["/v1/messages", { messages, max_tokens: 3000, stream: true, temperature: 1 }],
    ["/v1/responses", { input: prompt, max_output_tokens: 3000, stream: true, temperature: 1 }],
    ["/api/generate", { prompt, stream: true, options: { num_predict: 3000, temperature: 1 } }],
  ];
  const [path, body] = bodies[i % bodies.length];
  return [path, { model: "story", ...body }];
}

/** When a client goes: so long after it has sent, or after so many pieces have come. */
type Leaving = { afterMs: number } | { afterChunks: number };

type Phase = "before the answer" | "in the answer" | "ended by itself";

function leavingOf(isStream: boolean, random: () => number): Leaving {
  // Whoever waits for a whole answer sees no pieces of it.
  if (!isStream || random() < 0.6) return { afterMs: random() * 60 };
  return { afterChunks: Math.floor(random() * 4) };
}

/** Its own connection, which is cut: a client library may do that later, or never. */
function sendAndLeave(url: string, i: number, random: () => number): Promise<Phase> {
  const [path, body] = longRequest(i);
  const leaving = leavingOf("stream" in body, random);
  const headers = { "Content-Type": "application/json" };
  const request = http.request(`${url}${path}`, { method: "POST", headers, agent: false });
  let phase: Phase = "before the answer";
  return new Promise((resolve, reject) => {
    request.once("response", (response) => {
      if (response.statusCode !== 200) reject(new Error(`${path}: ${response.statusCode}`));
      let chunks = 0;
      response.on("data", () => {
        phase = "in the answer";
        if ("afterChunks" in leaving && ++chunks > leaving.afterChunks) request.destroy();
      });
      response.once("end", () => phase = "ended by itself");
      response.on("error", () => {});
    });
    request.on("error", () => {});
    request.once("close", () => resolve(phase));
    request.end(JSON.stringify(body));
    if ("afterMs" in leaving) sleep(leaving.afterMs).then(() => request.destroy());
  });
}

Deno.test(`aborts: ${REQUESTS} clients that leave take nothing with them`, async () => {
  // Not enough for all that run: some give their memory up as well.
  const cache = ["--ctx", "4096", "--cache-tokens", "16384"];
  const args = ["--threads", "1", ...cache, "--max-sequences", "16", "--max-waiting", "100"];
  await using server = await ServerProcess.start({ args });
  const before = await greedyText(server.url);
  const random = randomOf(SEED);
  const phases = new Map<Phase, number>();
  const left = Array.from({ length: REQUESTS }, (_, i) => i);
  const work = async () => {
    for (let i = left.shift(); i !== undefined; i = left.shift()) {
      const phase = await sendAndLeave(server.url, i, random);
      phases.set(phase, (phases.get(phase) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  console.log(`  ${[...phases].map(([phase, count]) => `${count} ${phase}`).join(", ")}`);
  assert.ok(phases.get("before the answer")! > 50 && phases.get("in the answer")! > 50);
  await untilIdle(server.url);
  assert.equal(await greedyText(server.url), before);
});
