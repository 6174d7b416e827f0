/** Disks that are full. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import { ServerProcess } from "../../bench/server/server_process.ts";
import { testUnless } from "../tools.ts";
import { greedyText } from "./requests.ts";

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

testUnless(
  fs.existsSync("/dev/full") ? null : "there is no /dev/full",
  "disk: a log that can't be written does not end the server",
  async () => {
    const port = await freePort();
    await using server = ServerProcess.spawn({
      args: ["--threads", "1", "--port", String(port)],
      under: ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"],
    });
    await server.ready(`http://127.0.0.1:${port}`);
    const text = await greedyText(server.url);
    for (let i = 0; i < 20; i++) assert.equal(await greedyText(server.url), text);
    server.signal("SIGTERM");
    assert.equal(await server.ended, 0);
  },
);

/** Why no file systems can be mounted for a test, or null. */
function mountProblem(): string | null {
  const probe = ["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
  const { status } = spawnSync("unshare", probe, { stdio: "ignore" });
  return status === 0 ? null : "file systems can't be mounted here";
}

testUnless(
  mountProblem(),
  "disk: no room for packed weights is one clear error at the start",
  async () => {
    await using server = ServerProcess.spawn({
      args: ["--threads", "1"],
      env: { TRILITH_CACHE: "/mnt" },
      under: [
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs -o size=64k tmpfs /mnt && exec "$@"',
        "sh",
      ],
    });
    assert.equal(await server.ended, 1);
    assert.match(server.output, /^error: .*full \(ENOSPC\), set TRILITH_CACHE=/m);
  },
);
