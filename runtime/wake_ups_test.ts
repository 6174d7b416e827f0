import assert from "node:assert/strict";
import { wakeUps } from "./wake_ups.ts";

Deno.test("wake-ups: all are woken in order, after the caller, a few a turn of the event loop", async () => {
  const woken: number[] = [];
  for (let i = 0; i < 20; i++) wakeUps.add(() => woken.push(i));
  assert.equal(woken.length, 0);
  await Promise.resolve();
  const first = woken.length;
  assert.ok(first > 0 && first < 20);
  while (woken.length < 20) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(woken, Array.from({ length: 20 }, (_, i) => i));
});
