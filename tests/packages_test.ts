import assert from "node:assert/strict";
import fs from "node:fs";
import { VERSION } from "../runtime/version.ts";

function read(name: string) {
  return JSON.parse(fs.readFileSync(new URL(`../${name}`, import.meta.url), "utf8"));
}

/** Deno reads versions from deno.json, Bun from package.json: they must not drift apart. */
Deno.test("deno.json and package.json name the same versions", () => {
  const { imports } = read("deno.json");
  const { dependencies, devDependencies } = read("package.json");
  const forDeno = Object.entries<string>(imports).map(([name, specifier]) =>
    [name, specifier.slice(`npm:${name}@`.length)] as const
  );
  assert.deepEqual(Object.fromEntries(forDeno), { ...dependencies, ...devDependencies });
});

Deno.test("deno.json and the code name the same version", () => {
  assert.equal(read("deno.json").version, VERSION);
});

Deno.test("deno.json and package.json export the same modules", () => {
  assert.ok(Object.keys(read("deno.json").exports).length > 1);
  assert.deepEqual(read("package.json").exports, read("deno.json").exports);
});
