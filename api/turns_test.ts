import assert from "node:assert/strict";
import { Turns } from "./turns.ts";

function work(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end;);
}

Deno.test("turns: the event loop turns between many that come at once, in their order", async () => {
  const turns = new Turns();
  const order: number[] = [];
  let turned = 0;
  const timer = setInterval(() => turned++, 1);
  await Promise.all(Array.from({ length: 12 }, async (_, i) => {
    await turns.take();
    order.push(i);
    work(3);
  }));
  clearInterval(timer);
  assert.deepEqual(order, Array.from({ length: 12 }, (_, i) => i));
  assert.ok(turned >= 3, `timers fired ${turned} times`);
});

Deno.test("turns: who comes alone does not wait for one", async () => {
  const turns = new Turns();
  work(20);
  let turned = false;
  setImmediate(() => turned = true);
  await turns.take();
  assert.equal(turned, false);
  await new Promise((resolve) => setImmediate(resolve));
});
