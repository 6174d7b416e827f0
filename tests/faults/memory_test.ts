/** Thousands of requests leave no memory behind. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { ROOT } from "../paths.ts";
import type { Memory } from "./memory_process.ts";

/** TRILITH_SOAK_REQUESTS: more of them, for a longer look. */
const REQUESTS = Number(process.env.TRILITH_SOAK_REQUESTS) || 10_000;
/** A leaked signal, stream or sequence has more than that; beginnings that are cached have less. */
const MOST_HEAP_BYTES = 200;
/** Allocators keep pages for later, but not without end. */
const MOST_RESIDENT_BYTES = 48 * 2 ** 20;

function measure(): Promise<Memory[]> {
  const script = path.join(ROOT, "tests/faults/memory_process.ts");
  const flags = ["run", "-A", "--no-check", "--v8-flags=--expose-gc"];
  const child = spawn(Deno.execPath(), [...flags, script, String(REQUESTS)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => {
      if (status === 0) resolve(JSON.parse(stdout));
      else reject(new Error(stderr));
    });
  });
}

Deno.test(`memory: it is flat over ${REQUESTS} requests`, async () => {
  const seen = await measure();
  const [first, last] = [seen[0], seen.at(-1)!];
  const between = REQUESTS * (seen.length - 1) / seen.length;
  const heap = (last.heap - first.heap) / between;
  const resident = last.resident - first.resident;
  console.log(
    `  heap: ${heap.toFixed(0)} bytes a request, resident: ${(resident / 2 ** 20).toFixed(1)} MiB`,
  );
  assert.ok(heap < MOST_HEAP_BYTES, `the heap grows by ${heap} bytes a request`);
  assert.ok(resident < MOST_RESIDENT_BYTES, `the process grew by ${resident} bytes`);
});
