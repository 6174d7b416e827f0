import assert from "node:assert/strict";
import { loadModel } from "./engine.ts";
import { availableMemoryBytes, checkMemory } from "./memory.ts";

const MEMINFO = { "/proc/meminfo": "MemTotal: 900 kB\nMemAvailable:    800 kB\n" };

function availableOf(files: Record<string, string>): number | null {
  return availableMemoryBytes((path) => files[path] ?? null);
}

Deno.test("without a limit the system says what is free", () => {
  assert.equal(availableOf(MEMINFO), 800 * 1024);
  const unlimited = { "/proc/self/cgroup": "0::/app\n", "/sys/fs/cgroup/app/memory.max": "max\n" };
  assert.equal(availableOf({ ...MEMINFO, ...unlimited }), 800 * 1024);
});

Deno.test("the tightest control group counts, with the cached pages that it can give back", () => {
  const v2 = {
    "/proc/self/cgroup": "0::/slice/app\n",
    "/sys/fs/cgroup/slice/app/memory.max": "500000\n",
    "/sys/fs/cgroup/slice/app/memory.current": "400000\n",
    "/sys/fs/cgroup/slice/app/memory.stat": "anon 5\ninactive_file 1000\n",
  };
  assert.equal(availableOf({ ...MEMINFO, ...v2 }), 101_000);
  const above = {
    "/sys/fs/cgroup/slice/memory.max": "500000\n",
    "/sys/fs/cgroup/slice/memory.current": "450000\n",
  };
  assert.equal(availableOf({ ...MEMINFO, ...v2, ...above }), 50_000);
  const v1 = {
    "/proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/x\n",
    "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "300000\n",
    "/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "310000\n",
    "/sys/fs/cgroup/memory/docker/x/memory.stat": "total_inactive_file 20000\n",
  };
  assert.equal(availableOf({ ...MEMINFO, ...v1 }), 10_000);
});

Deno.test("what does not fit is refused with all numbers and the remedies", () => {
  const use = { weightBytes: 0, cacheBytes: 8e9, cacheTokens: 4096, bufferBytes: 5e8 };
  checkMemory(use, 8.5e9);
  checkMemory(use, null);
  assert.throws(
    () => checkMemory(use, 8.4e9),
    /of 4096 tokens 8\.00 GB and steps 0\.50 GB must be in memory, and 8\.40 GB are free: use a sma/,
  );
  assert.throws(
    () => checkMemory({ ...use, weightBytes: 2e9 }, 10e9),
    /model: weights 2\.00 GB, keys and values of 4096 tokens 8\.00 GB and steps 0\.50 GB must be/,
  );
});

Deno.test("loading refuses a context beyond memory before it prepares anything", async () => {
  const cacheTokens = 2 ** 31 - 16;
  await assert.rejects(
    loadModel(undefined, { kernels: "reference", cacheTokens }),
    /keys and values of 2147483632 tokens/,
  );
});
