import assert from "node:assert/strict";
import { BlockWriter, writeAll } from "./block_writer.ts";

const BLOCK = 16 << 20;

Deno.test("parts of any size come out as whole blocks at multiples of their size", async () => {
  const sizes = [1, BLOCK - 2, 5, 2 * BLOCK, 0, 123];
  const writes: [at: number, bytes: number][] = [];
  const file = new Uint8Array(4 * BLOCK);
  const blocks = new BlockWriter((block, at) => {
    writes.push([at, block.length]);
    file.set(block, at);
    return Promise.resolve();
  });
  const expected: number[] = [];
  for (const [i, size] of sizes.entries()) {
    await blocks.append(new Uint8Array(size).fill(i + 1));
    expected.push(blocks.end);
  }
  await blocks.finish();
  assert.deepEqual(writes, [[0, BLOCK], [BLOCK, BLOCK], [2 * BLOCK, BLOCK], [3 * BLOCK, 127]]);
  let from = 0;
  for (const [i, end] of expected.entries()) {
    assert.ok(file.subarray(from, end).every((byte) => byte === i + 1), `part ${i}`);
    from = end;
  }
});

Deno.test("an error of a write is thrown by the next one, and closing waits for it", async () => {
  let ended = 0;
  const blocks = new BlockWriter(async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    ended++;
    throw new Error("disk full");
  });
  await blocks.append(new Uint8Array(BLOCK));
  await assert.rejects(blocks.append(new Uint8Array(BLOCK)), /disk full/);
  await blocks[Symbol.asyncDispose]();
  assert.equal(ended, 1);
});

Deno.test("a write that takes only some bytes goes on where it stopped", async () => {
  const got = new Uint8Array(10);
  const stingy = {
    write(bytes: Uint8Array, offset: number, length: number, position: number) {
      const bytesWritten = Math.min(length, 3);
      got.set(bytes.subarray(offset, offset + bytesWritten), position);
      return Promise.resolve({ bytesWritten });
    },
  };
  await writeAll(stingy, Uint8Array.of(1, 2, 3, 4, 5, 6, 7), 2);
  assert.deepEqual([...got], [0, 0, 1, 2, 3, 4, 5, 6, 7, 0]);
});
