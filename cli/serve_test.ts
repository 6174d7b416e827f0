import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./test_helpers.ts";

/** The one line of a command that must be refused as wrong usage. */
async function refusal(args: string[], environment: Record<string, string> = {}): Promise<string> {
  const { code, stdout, stderr } = await run(["serve", ...args], { environment });
  assert.equal(code, 2, stderr);
  assert.equal(stdout, "");
  assert.match(stderr, /^error: [^\n]+\n$/);
  return stderr;
}

Deno.test("serve refuses what makes no sense, as wrong usage", async () => {
  assert.match(await refusal(["--port", "65536"]), /--port 65536: give a whole number/);
  assert.match(await refusal(["--port", "http"]), /--port http/);
  assert.match(await refusal(["--rate-limit", "0"]), /--rate-limit 0/);
  assert.match(await refusal(["--max-waiting", "-1"]), /--max-waiting -1/);
  assert.match(await refusal(["--log-format", "xml"]), /text, json/);
  assert.match(await refusal(["--api-key", " "]), /empty --api-key/);
  assert.match(await refusal(["--nonsense"]), /unknown option/i);
  assert.match(await refusal(["--socket", "s", "--port", "80"]), /--socket and --port/);
});

Deno.test("serve refuses wrong variables by their names", async () => {
  const line = await refusal([], { TRILITH_PORT: "http" });
  assert.match(line, /TRILITH_PORT.*--port http/);
  assert.match(await refusal([], { TRILITH_WEB: "maybe" }), /TRILITH_WEB "maybe": give 1 or 0/);
  assert.match(await refusal([], { TRILITH_LOG_LEVEL: "loud" }), /TRILITH_LOG_LEVEL.*debug/);
});

Deno.test("serve: a file of keys that is missing or empty is refused: it would open the server", async () => {
  const folder = mkdtempSync(join(tmpdir(), "trilith-keys-"));
  try {
    const file = join(folder, "keys");
    assert.match(await refusal(["--api-key-file", file]), /there is no such file/);
    writeFileSync(file, "# none yet\n\n");
    assert.match(await refusal(["--api-key-file", file]), /it has no key/);
    assert.match(await refusal([], { TRILITH_API_KEY_FILE: file }), /it has no key/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

Deno.test("serve --help lists every flag's variable", async () => {
  const { code, stdout } = await run(["serve", "--help"]);
  assert.equal(code, 0);
  const flags = [...stdout.matchAll(/^ {2}(?:-\w, )?--(?:no-)?([a-z0-9-]+)/gm)].map(([, flag]) =>
    flag
  )
    .filter((flag) => flag !== "help");
  assert.ok(flags.length > 25);
  for (const flag of flags) {
    const variable = `TRILITH_${flag.replaceAll("-", "_").toUpperCase()}`;
    assert.match(stdout, new RegExp(`\\b${variable}\\b`), flag);
  }
});
