import assert from "node:assert/strict";
import { pause } from "../runtime/pause.ts";
import { OneATurn, Turns } from "./turns.ts";

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

Deno.test("turns: where one is let in a turn, no two are in the same", async () => {
  const turns = new OneATurn();
  let turn = 0;
  let isOver = false;
  const count = () => {
    turn++;
    if (!isOver) setImmediate(count);
  };
  count();
  const seen = await Promise.all(Array.from({ length: 5 }, () => turns.take().then(() => turn)));
  isOver = true;
  assert.deepEqual(seen, seen.toSorted((a, b) => a - b), "in their order");
  assert.equal(new Set(seen).size, 5);
  assert.equal(seen[0], 1, "the first one does not wait");
  // The last turns end.
  await pause();
  await pause();
});
