/** The server is killed in the middle of a stream, and started again. */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { CHAT, greedyText, post, streamOver } from "./requests.ts";

const ARGS = ["--threads", "1", "--ctx", "16384"];
const LONG = { ...CHAT, max_tokens: 15_000, ignore_eos: true, stream: true };

async function withTemporary(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-test-"));
  try {
    await use(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** Kills it as the system does, at once. */
async function kill(server: ServerProcess): Promise<void> {
  server.signal("SIGKILL");
  assert.equal(await server.ended, "SIGKILL");
}

Deno.test("kill: the same port serves again at once, with the same cache and the same answers", async () => {
  const first = await ServerProcess.start({ args: ARGS });
  const { port } = new URL(first.url);
  const text = await greedyText(first.url);
  const response = await post(first.url, "/v1/chat/completions", LONG);
  const reader = response.body!.getReader();
  await reader.read();
  await kill(first);
  await assert.rejects(
    async () => {
      while (!(await reader.read()).done);
    },
    TypeError,
    "the client sees that its answer is not whole",
  );

  await using second = await ServerProcess.start({ args: [...ARGS, "--port", port] });
  assert.equal(await greedyText(second.url), text);
  assert.doesNotMatch(second.output, /compil|pack/i, "the cache is whole");
});

Deno.test("kill: a Unix socket that was left behind is taken over, one in use is not", async () => {
  await withTemporary(async (folder) => {
    const socket = path.join(folder, "server.sock");
    const args = [...ARGS, "--socket", socket];
    const first = ServerProcess.spawn({ args });
    await socketReady(socket);
    const stream = await streamOver(socket, 15_000);
    await sleep(50);
    await kill(first);
    assert.ok(await stream.ended instanceof Error);
    assert.doesNotMatch(stream.text(), /\[DONE\]/);
    assert.ok(fs.existsSync(socket), "nobody could remove it");

    await using _second = ServerProcess.spawn({ args });
    await socketReady(socket);
    const again = await streamOver(socket, 5);
    assert.equal(await again.ended, null);
    assert.match(again.text(), /data: \[DONE\]\n\n$/);

    await using third = ServerProcess.spawn({ args });
    assert.equal(await third.ended, 1);
    assert.match(third.output, /error: .*server\.sock/);
    assert.equal((await streamOver(socket, 1)).status, 200, "the second one goes on");
  });
});

/** Until a model answers behind it. */
async function socketReady(socket: string): Promise<void> {
  for (let i = 0; i < 1500; i++) {
    const stream = await streamOver(socket, 1).catch(() => null);
    await stream?.ended;
    if (stream?.status === 200) return;
    await sleep(20);
  }
  assert.fail("the server does not get ready");
}
