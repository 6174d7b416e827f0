/** The single-file executable: built, and run where nothing of the project is at hand. */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { WEB_FILES } from "../api/web/files.ts";
import project from "../deno.json" with { type: "json" };
import { buildExecutable } from "../deploy/executable.ts";
import { cacheDirectory } from "../kernels/cache.ts";
import { documentOf, runCli, type RunOptions } from "./cli_process.ts";
import { startServe } from "./serve_process.ts";
import { bun, testWith } from "./tools.ts";

const GENERATE = ["generate", "Once upon a time", "--max-tokens", "8", "--seed", "1", "--json"];

/** Runs it in a folder, a home and a cache that are empty at first. */
function inEmpty(file: string, folder: string): RunOptions {
  const env = { HOME: folder, HF_HOME: path.join(folder, "hub") };
  return { cache: path.join(folder, "cache"), env, cwd: folder, runtime: [], file };
}

async function checkVersion(file: string, folder: string): Promise<void> {
  const { stdout, stderr } = await runCli(["--version"], inEmpty(file, folder));
  assert.equal(stdout, `${project.version}\n`, stderr);
  assert.ok(!fs.existsSync(path.join(folder, "cache", "embedded")), "unpacked though unneeded");
}

async function checkText(file: string, folder: string): Promise<void> {
  const inDeno = documentOf(await runCli(GENERATE, { cache: cacheDirectory() }));
  const first = documentOf(await runCli(GENERATE, inEmpty(file, folder)));
  const second = documentOf(await runCli(GENERATE, inEmpty(file, folder)));
  assert.equal(inDeno.tokenIds.length, 8);
  for (const field of ["model", "promptTokens", "tokenIds", "text", "finishReason"]) {
    assert.deepEqual(first[field], inDeno[field], field);
    assert.deepEqual(second[field], inDeno[field], field);
  }
}

async function checkServer(file: string, folder: string): Promise<void> {
  const server = await startServe([], inEmpty(file, folder));
  try {
    for (const { path, type, text } of WEB_FILES) {
      const response = await fetch(`${server.place.url}/${path}`);
      assert.equal(response.status, 200, path);
      assert.equal(response.headers.get("content-type"), type);
      assert.equal(await response.text(), text, path);
    }
  } finally {
    server.signal("SIGTERM");
    assert.equal((await server.ended).code, 0);
  }
}

testWith(bun(), "executable: runs alone, with the same text and web page", async ([program], t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-test-"));
  const file = path.join(folder, "bin", "trilith");
  const empty = path.join(folder, "empty");
  fs.mkdirSync(empty);
  try {
    await t.step("is built", () => buildExecutable(file, program));
    await t.step("knows its version", () => checkVersion(file, empty));
    await t.step("generates what Deno does", () => checkText(file, empty));
    await t.step("serves the chat", () => checkServer(file, empty));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
