import assert from "node:assert/strict";
import fc from "fast-check";
import { BlockPool, SequenceMemory } from "./block_pool.ts";

const idsOf = (length: number, first = 0) => Array.from({ length }, (_, i) => first + i);

function filled(pool: BlockPool, ids: readonly number[]): SequenceMemory {
  const memory = pool.open();
  memory.reuse(ids);
  assert.ok(memory.reserve(ids.length));
  memory.publish(ids);
  return memory;
}

Deno.test("block pool: all or nothing, low numbers first, all come back", () => {
  const pool = new BlockPool(3);
  const memory = pool.open();
  assert.ok(memory.reserve(17));
  assert.deepEqual(memory.blocks, [0, 1]);
  const other = pool.open();
  assert.equal(other.reserve(33), false);
  assert.deepEqual(other.blocks, []);
  memory.release();
  assert.deepEqual(pool.counts, { total: 3, used: 0, cached: 0, free: 3 });
  assert.deepEqual([0, 1, 16, 17].map((tokens) => SequenceMemory.blocksFor(tokens)), [0, 1, 1, 2]);
});

Deno.test("block pool: an equal beginning is read, a different one is not", () => {
  const pool = new BlockPool(10);
  const first = filled(pool, idsOf(40));
  const same = pool.open();
  assert.equal(same.reuse([...idsOf(33), 99, 99, 99, 99]), 32);
  assert.deepEqual(same.blocks, first.blocks.slice(0, 2));
  const other = pool.open();
  assert.equal(other.reuse([1, ...idsOf(40)]), 0);
  assert.deepEqual(pool.counts, { total: 10, used: 3, cached: 0, free: 7 });
  for (const memory of [first, same, other]) memory.release();
  assert.deepEqual(pool.counts, { total: 10, used: 0, cached: 2, free: 8 });
});

Deno.test("block pool: what two computed at the same time is kept once", () => {
  const pool = new BlockPool(4);
  const memories = [pool.open(), pool.open()];
  for (const memory of memories) assert.ok(memory.reserve(20));
  for (const memory of memories) memory.publish(idsOf(20));
  assert.equal(memories[0].blocks[0], memories[1].blocks[0]);
  assert.deepEqual(pool.counts, { total: 4, used: 3, cached: 0, free: 1 });
});

Deno.test("block pool: what was left longest ago goes first, its end before its beginning", () => {
  const pool = new BlockPool(4);
  filled(pool, idsOf(32)).release();
  filled(pool, idsOf(32, 100)).release();
  const reader = pool.open();
  assert.ok(reader.reserve(16));
  const known = (first: number) => pool.open().knownTokens(idsOf(32, first));
  assert.deepEqual([known(0), known(100)], [16, 32]);
  assert.ok(reader.reserve(32));
  assert.deepEqual([known(0), known(100)], [0, 32]);
});

Deno.test("block pool: on any history a block is read only with the tokens written to it", () => {
  const step = fc.record({
    sequence: fc.nat(3),
    kind: fc.constantFrom("grow", "grow", "grow", "end"),
    prompt: fc.nat(2),
    tokens: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const pool = new BlockPool(12);
    const content: (readonly number[] | null)[] = new Array(12).fill(null);
    const live = new Map<number, { memory: SequenceMemory; ids: number[]; prompt: number }>();
    for (const { sequence, kind, prompt, tokens } of steps) {
      let own = live.get(sequence);
      if (own === undefined) {
        own = { memory: pool.open(), ids: [], prompt };
        live.set(sequence, own);
        const begun = idsOf(tokens, prompt * 1000);
        const read = own.memory.reuse(begun);
        for (let at = 0; at < read; at += 16) {
          assert.deepEqual(content[own.memory.blocks[at / 16]], begun.slice(0, at + 16));
        }
        own.ids.push(...begun.slice(0, read));
      } else if (kind === "end") {
        own.memory.release();
        live.delete(sequence);
      } else if (own.memory.reserve(own.ids.length + tokens)) {
        const from = own.ids.length;
        own.ids.push(...idsOf(tokens, own.prompt * 1000 + from));
        for (let i = Math.floor(from / 16); i < own.memory.blocks.length; i++) {
          content[own.memory.blocks[i]] = own.ids.slice(0, 16 * (i + 1));
        }
        own.memory.publish(own.ids);
      }
      const { total, used, cached, free } = pool.counts;
      assert.equal(used + cached + free, total);
      const held = new Set([...live.values()].flatMap(({ memory }) => memory.blocks));
      assert.equal(used, held.size);
    }
    for (const { memory } of live.values()) memory.release();
    assert.equal(pool.counts.used, 0);
  }));
});
