/** The same answer alone and in a crowd, over HTTP, with others that come, go and take the memory. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { lagBetween, readMetrics } from "../../bench/server/metrics.ts";
import { promptOf } from "../../bench/server/prompts.ts";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { randomOf } from "../../codegen/random.ts";
import { untilIdle } from "../server_state.ts";

interface Asked {
  prompt: string;
  temperature: number;
  seed: number;
  max_tokens: number;
}

/** Greedy and seeded ones, long and short. */
const ASKED: Asked[] = Array.from({ length: 12 }, (_, i) => ({
  prompt: promptOf(i, 20 + 15 * i),
  temperature: i % 3 === 0 ? 0 : 0.8,
  seed: i,
  max_tokens: 40 + 10 * i,
}));

async function complete(url: string, asked: Asked, signal?: AbortSignal): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "story", ignore_eos: true, ...asked }),
    signal,
  });
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  return body.choices[0].text;
}

/** Others, some of which leave before their answer is there. */
async function crowd(url: string, seed: number, stop: AbortSignal): Promise<void> {
  const random = randomOf(seed);
  while (!stop.aborted) {
    const asked = {
      prompt: promptOf(1000 + seed, 10 + Math.floor(random() * 100)),
      temperature: 1,
      seed,
      max_tokens: 1 + Math.floor(random() * 100),
    };
    const leave = AbortSignal.any([stop, AbortSignal.timeout(Math.ceil(random() * 300))]);
    await complete(url, asked, leave).catch((error) => {
      if (!leave.aborted) throw error;
    });
    await sleep(random() * 20);
  }
}

Deno.test("crowd: greedy and seeded answers are the same alone and in a crowd", async () => {
  // Room for three or four of them at a time: the others wait, or give their memory up and go on.
  const args = ["--threads", "1", "--cache-tokens", "1024"];
  await using server = await ServerProcess.start({ args });
  const { url } = server;
  const alone: string[] = [];
  for (const asked of ASKED) alone.push(await complete(url, asked));
  assert.equal(new Set(alone).size, ASKED.length);

  const before = await readMetrics(url);
  const stop = new AbortController();
  const others = [1, 2, 3].map((seed) => crowd(url, seed, stop.signal));
  for (let round = 0; round < 2; round++) {
    const together = await Promise.all(ASKED.map((asked) => complete(url, asked)));
    assert.deepEqual(together, alone);
  }
  stop.abort();
  await Promise.all(others);

  const samples = await readMetrics(url);
  assert.ok(samples.get("trilith_preemptions_total")! > 0, "nobody had to give memory up");
  const lag = lagBetween(before, samples);
  assert.ok(lag !== null);
  const [max, own] = [lag.max, lag.own].map((ms) => ms.toFixed(1));
  console.log(`  event loop: ${lag.p99} ms late at p99, ${max} ms at most, ${own} ms by itself`);
  await untilIdle(url);
});
