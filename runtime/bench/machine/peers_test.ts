import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { inFolder } from "../../../kernels/test_helpers.ts";
import { readPeersFile } from "./peers.ts";
import { PEERS } from "./test_helpers.ts";

Deno.test("peers: what the benchmark writes is read as it was, and nothing more", () =>
  inFolder(async (folder) => {
    const file = path.join(folder, "peers.json");
    fs.writeFileSync(file, JSON.stringify({ ...PEERS, more: 1 }));
    assert.deepEqual(await readPeersFile(file), PEERS);
  }));

const BROKEN: Record<string, [unknown, RegExp]> = {
  "a list": [[], /as it must be an object: write it with bench\/peers\/run\.ts --json/],
  "no peers": [{ ...PEERS, peers: [] }, /peers must be a list/],
  "a peer that is none": [{ ...PEERS, peers: [1] }, /peers\[0\] must be an object/],
  "threads of zero": [{ ...PEERS, threads: 0 }, /threads must be an integer from 1 to 1024/],
  "no shape": [{ ...PEERS, shape: undefined }, /shape must be a string/],
  "a speed below zero": [
    { ...PEERS, peers: [{ ...PEERS.peers[0], decode: { tokensPerSecond: -1, stdev: 0 } }] },
    /tokensPerSecond must be a number from 0/,
  ],
  "no speed": [
    { ...PEERS, peers: [{ ...PEERS.peers[0], decode: null }] },
    /decode must be an object/,
  ],
};

for (const [what, [value, message]] of Object.entries(BROKEN)) {
  Deno.test(`peers: ${what} is refused`, () =>
    inFolder(async (folder) => {
      const file = path.join(folder, "peers.json");
      fs.writeFileSync(file, JSON.stringify(value));
      await assert.rejects(readPeersFile(file), message);
    }));
}

Deno.test("peers: a file that is not there or no JSON is told", () =>
  inFolder(async (folder) => {
    const file = path.join(folder, "peers.json");
    await assert.rejects(readPeersFile(file), /there is no such file/);
    fs.writeFileSync(file, "{");
    await assert.rejects(readPeersFile(file), /Cannot (read|use|parse) .*peers\.json/);
  }));
