/** SIGTERM under load: what a client is given is whole, or visibly is not. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { promptOf } from "../../bench/server/prompts.ts";
import { until } from "../server_state.ts";
import { post } from "./requests.ts";

const STREAMS = 64;
/** Exit status where some requests were broken off. */
const TERMINATED = 143;

/** A response whose body nobody wants. */
async function emptied(response: Response): Promise<Response> {
  await response.body?.cancel();
  return response;
}

type Outcome = "complete" | "ended by an error" | "refused" | "cut off";

/** Reads a stream to its end, and says how it ended. A success that is not whole fails the test. */
async function outcomeOf(url: string, i: number, maxTokens: number): Promise<Outcome> {
  let text = "";
  try {
    const response = await post(url, "/v1/chat/completions", {
      model: "story",
      messages: [{ role: "user", content: promptOf(i, 20) }],
      max_tokens: maxTokens,
      ignore_eos: true,
      stream: true,
    });
    if (response.status === 503) {
      assert.ok((await response.json()).error.message);
      return "refused";
    }
    assert.equal(response.status, 200);
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) text += part;
  } catch (error) {
    if (error instanceof TypeError) return "cut off";
    throw error;
  }
  const last = text.trimEnd().split("\n\n").at(-1);
  if (last === "data: [DONE]") {
    // An error may come before the end as well.
    return /^data: \{"error"/m.test(text) ? "ended by an error" : complete(text, maxTokens);
  }
  assert.match(last!, /^data: \{"error":/, "a stream that seems whole, but is not");
  return "ended by an error";
}

function complete(text: string, maxTokens: number): Outcome {
  assert.match(text, /"finish_reason":"length"/);
  const pieces = text.split("\n").filter((line) => /"content":"/.test(line)).length;
  assert.ok(pieces > maxTokens / 2, `${pieces} pieces of ${maxTokens} tokens`);
  return "complete";
}

for (
  const [name, maxTokens, drainSeconds] of [
    ["answers that there is time for are completed", 60, 60],
    ["those that take too long are ended by an error", 900, 0],
  ] as const
) {
  Deno.test(`shutdown: SIGTERM with ${STREAMS} streams: ${name}`, async () => {
    const drain = ["--drain-seconds", String(drainSeconds)];
    const args = ["--threads", "1", "--ctx", "1100", ...drain];
    await using server = await ServerProcess.start({ args });
    const { url } = server;
    const streams = Array.from({ length: STREAMS }, (_, i) => outcomeOf(url, i, maxTokens));
    await until(url, ({ running }) => running > STREAMS / 2, "busy");
    server.signal("SIGTERM");
    const outcomes = await Promise.all(streams);
    const count = (outcome: Outcome) => outcomes.filter((each) => each === outcome).length;
    const told = Object.entries(Object.groupBy(outcomes, (each) => each))
      .map(([outcome, { length }]) => `${length} ${outcome}`);
    console.log(`  ${told.join(", ")}`);
    const status = await server.ended;
    assert.equal(count("cut off"), 0);
    if (drainSeconds > 0) assert.equal(count("complete") + count("refused"), STREAMS);
    else assert.ok(count("ended by an error") > STREAMS / 2);
    assert.equal(status, drainSeconds > 0 ? 0 : TERMINATED, server.output);
  });
}

Deno.test("shutdown: a second signal ends it at once", async () => {
  const args = [
    "--threads",
    "1",
    "--ctx",
    "16384",
    "--cache-tokens",
    "16384",
    "--drain-seconds",
    "600",
  ];
  await using server = await ServerProcess.start({ args });
  const stream = outcomeOf(server.url, 1, 15_000);
  await until(server.url, ({ running }) => running === 1, "busy");
  server.signal("SIGTERM");
  while ((await fetch(`${server.url}/health`).then(emptied)).ok) await sleep(10);
  server.signal("SIGTERM");
  assert.equal(await server.ended, TERMINATED);
  assert.notEqual(await stream, "complete");
});
