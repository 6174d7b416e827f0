/** The web chat's files are the same in Deno and Bun, and serving them needs no permission. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { WEB_FILES } from "../api/web/files.ts";
import { ROOT } from "./paths.ts";
import { bun, testWith } from "./tools.ts";

function tagsIn([program, ...args]: readonly string[]): unknown {
  const script = path.join(ROOT, "tests", "web_tags.ts");
  const { stdout, stderr } = spawnSync(program, [...args, script], { cwd: ROOT, encoding: "utf8" });
  assert.match(stdout, /^\[/, stderr);
  return JSON.parse(stdout);
}

const TAGS = WEB_FILES.map(({ path, etag }) => [path, etag]);

testWith(
  { command: [Deno.execPath(), "run", "--no-prompt"] },
  "web files: no permission",
  (deno) => {
    assert.deepEqual(tagsIn(deno), TAGS);
  },
);

testWith(bun(), "web files: the same bytes in Bun", (command) => {
  assert.deepEqual(tagsIn([...command, "run"]), TAGS);
});
