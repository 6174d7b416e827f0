import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { CHECKS } from "./ffi_checks.ts";

for (const [name, check] of Object.entries(CHECKS)) Deno.test(`ffi: ${name}`, check);

const checks = fileURLToPath(import.meta.resolve("./ffi_checks.ts"));
const bun = process.env.TRILITH_BUN ?? "bun";
const hasBun = spawnSync(bun, ["--version"]).status === 0;

Deno.test({
  name: "ffi: the same checks pass in Bun",
  ignore: !hasBun,
  fn() {
    const output = execFileSync(bun, [checks], { encoding: "utf8" });
    assert.equal(output.trim().split("\n").length, Object.keys(CHECKS).length, output);
  },
});

Deno.test("ffi: without permission the error says which flag to add", async () => {
  const script = `
    import { openLibrary } from ${JSON.stringify(import.meta.resolve("./ffi.ts"))};
    try { openLibrary("/nowhere/libtrilith.so", {}); } catch (error) {
      console.log(error.name, error.problem, error.message);
    }`;
  // Not node:child_process, which hands this process's permissions on.
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", `data:text/typescript,${encodeURIComponent(script)}`],
    stdin: "null",
  });
  const { stdout } = await command.output();
  const text = new TextDecoder().decode(stdout);
  assert.match(text, /^NativeLibraryError permission .*--allow-ffi=\/nowhere\/libtrilith\.so/);
});
