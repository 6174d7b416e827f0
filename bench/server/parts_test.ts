/** What the load generator is made of, without a server. */
import assert from "node:assert/strict";
import { lagBetween, parseMetrics } from "./metrics.ts";
import { ownPrompt, promptOf } from "./prompts.ts";
import { quantile } from "./statistics.ts";
import { chunksIn, type Read } from "./stream.ts";

/** Read one after the other, a millisecond apart. */
function readsOf(...parts: string[]): Read[] {
  return parts.map((part, atMs) => ({ bytes: new TextEncoder().encode(part), atMs }));
}

Deno.test("load: events are read wherever the network cuts them", () => {
  const reads = readsOf(
    'data: {"a',
    '":1}\n\n: keep-alive\n\nda',
    'ta: {"a":2}\n\ndata: [DONE]\n\n',
  );
  assert.deepEqual([...chunksIn(reads)], [
    { chunk: { a: 1 }, atMs: 1 },
    { chunk: { a: 2 }, atMs: 2 },
  ]);
});

Deno.test("load: a stream without its end is an error", () => {
  assert.throws(() => [...chunksIn(readsOf('data: {"a":1}\n\n'))], /without \[DONE\]/);
});

Deno.test("load: quantiles are values that were there", () => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.deepEqual([0, 0.5, 0.99, 1].map((share) => quantile(hundred, share)), [1, 50, 99, 100]);
  assert.ok(Number.isNaN(quantile([], 0.5)));
});

Deno.test("load: prompts begin alike and go on differently, or differ from the start", () => {
  const [a, b] = [promptOf(1, 60), promptOf(2, 60)];
  assert.notEqual(a, b);
  assert.equal(a.slice(0, 180), b.slice(0, 180));
  assert.equal(promptOf(1, 60), a);
  assert.ok(promptOf(1, 120).split(" ").length > 120);
  assert.notEqual(ownPrompt(1, 60)[0], ownPrompt(2, 60)[0]);
});

Deno.test("load: metrics with and without labels", () => {
  const samples = parseMetrics('# HELP a b\na 1\nb{le="+Inf",x="y z"} 2.5\n');
  assert.deepEqual([...samples], [["a", 1], ['b{le="+Inf",x="y z"}', 2.5]]);
});

Deno.test("load: the event loop's lag, from its histogram", () => {
  assert.equal(lagBetween(new Map(), new Map()), null);
  const lag = "trilith_event_loop_lag_seconds";
  const text = (late: number) =>
    `${lag}_bucket{le="0.001"} ${200 - late}\n${lag}_bucket{le="0.005"} 199\n` +
    `${lag}_bucket{le="+Inf"} 200\n${lag}_count 200\ntrilith_event_loop_lag_max_seconds 0.25\n` +
    "trilith_event_loop_own_lag_max_seconds 0.125\n";
  assert.deepEqual(lagBetween(new Map(), parseMetrics(text(2))), { max: 250, own: 125, p99: 1 });
  assert.deepEqual(lagBetween(new Map(), parseMetrics(text(3))), { max: 250, own: 125, p99: 5 });
  assert.equal(
    lagBetween(parseMetrics(text(3)), parseMetrics(text(3)))!.p99,
    1,
    "nothing was late",
  );
});
