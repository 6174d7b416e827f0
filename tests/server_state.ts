/** What a server tells of its engine, and waiting for it. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { readMetrics } from "../bench/server/metrics.ts";

export interface EngineLoad {
  running: number;
  waiting: number;
  usedBlocks: number;
}

export const IDLE: EngineLoad = { running: 0, waiting: 0, usedBlocks: 0 };

/** @param key The server's API key, where it has one. */
export async function engineLoad(url: string, key?: string): Promise<EngineLoad> {
  const samples = await readMetrics(url, key);
  const value = (name: string) => {
    const found = samples.get(name);
    assert.ok(found !== undefined, `no metric ${name}`);
    return found;
  };
  return {
    running: value("trilith_sequences_running"),
    waiting: value("trilith_sequences_waiting"),
    usedBlocks: value('trilith_kv_blocks{state="used"}'),
  };
}

/** Waits until a condition of the engine holds; this only ends what hangs. */
export async function until(
  url: string,
  holds: (load: EngineLoad) => boolean,
  what: string,
  key?: string,
): Promise<void> {
  let load = IDLE;
  for (let i = 0; i < 1000; i++) {
    load = await engineLoad(url, key);
    if (holds(load)) return;
    await sleep(10);
  }
  assert.fail(`the engine is never ${what}: ${JSON.stringify(load)}`);
}

/** No sequence runs or waits, and none has memory. */
export async function untilIdle(url: string, key?: string): Promise<void> {
  await until(url, (load) => load.running + load.waiting + load.usedBlocks === 0, "idle", key);
}
