import assert from "node:assert/strict";
import { ahead, BufferPool } from "./ahead.ts";

/** Items 0, 1, ... and what was made of them so far. */
function counting(count: number, failsAt = Infinity) {
  const made: number[] = [];
  let isClosed = false;
  async function* items() {
    try {
      for (let i = 0; i < count; i++) {
        await Promise.resolve();
        if (i === failsAt) throw new Error(`item ${i}`);
        made.push(i);
        yield i;
      }
    } finally {
      isClosed = true;
    }
  }
  return { items: items(), made, isClosed: () => isClosed };
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 2));

for (const count of [0, 1, 3]) {
  Deno.test(`${count} items are made ahead, and no more`, async () => {
    const { items, made, isClosed } = counting(20);
    const seen: number[] = [];
    for await (const item of ahead(items, count)) {
      seen.push(item);
      await pause();
      assert.equal(made.length, Math.min(20, seen.length + count));
    }
    assert.deepEqual(seen, Array.from({ length: 20 }, (_, i) => i));
    assert.ok(isClosed());
  });
}

Deno.test("an error comes after the items before it", async () => {
  const { items } = counting(20, 5);
  const seen: number[] = [];
  await assert.rejects(async () => {
    for await (const item of ahead(items, 3)) seen.push(item);
  }, /item 5/);
  assert.deepEqual(seen, [0, 1, 2, 3, 4]);
});

Deno.test("who stops early leaves nothing under way", async () => {
  const { items, made, isClosed } = counting(20);
  for await (const item of ahead(items, 2)) if (item === 4) break;
  const before = made.length;
  assert.ok(isClosed());
  await pause();
  assert.equal(made.length, before);
});

Deno.test("a pool gives buffers that are large enough, its own again, and no one else's", () => {
  const pool = new BufferPool();
  const large = pool.take(100);
  const small = pool.take(10);
  assert.notEqual(large.buffer, small.buffer);
  pool.give(large);
  pool.give(new Uint8Array(1000));
  assert.equal(pool.take(50).buffer, large.buffer);
  pool.give(small);
  assert.notEqual(pool.take(11).buffer, small.buffer);
  assert.equal(pool.take(10).buffer, small.buffer);
  assert.equal(pool.take(7).byteLength, 7);
});
