/** Imports point one way: cli, api, runtime, kernels, codegen; and what is pure stays pure. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { ROOT } from "./paths.ts";

/** From the outside to the inside; a file may import its own layer and those after it. */
const LAYERS = ["cli", "api", "runtime", "kernels", "codegen"];

/** Made for tests, beside what they test. */
const IS_FOR_TESTS = /_test\.ts$|\/(test_helpers|fake_\w+|ffi_checks)\.ts$/;

/** Product sources of a folder, relative to the root. */
function sourcesOf(folder: string): string[] {
  const absolute = path.join(ROOT, folder);
  if (!fs.existsSync(absolute)) return [];
  return (fs.readdirSync(absolute, { recursive: true }) as string[])
    .map((name) => path.posix.join(folder, name.replaceAll(path.sep, "/")))
    .filter((name) => name.endsWith(".ts") && !IS_FOR_TESTS.test(name));
}

function textOf(file: string): string {
  return fs.readFileSync(path.join(ROOT, file), "utf8");
}

/** Without comments, which may name what code may not. */
function codeOf(file: string): string {
  return textOf(file).replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, "");
}

/** Declarations and `import("...")`, but not the `@import("...")` of Zig in a template. */
const IMPORT =
  /^(?:import|export)\b[^"`;]*?\bfrom\s+"([^"]+)"|^import\s+"([^"]+)"|(?<!@)\bimport\(\s*"([^"]+)"/gm;

/** What a file imports: files relative to the root, and other names as they are. */
function importsOf(file: string): string[] {
  return [...codeOf(file).matchAll(IMPORT)].map((match) => {
    const name = match.slice(1).find((group) => group !== undefined)!;
    return name.startsWith(".") ? path.posix.join(path.posix.dirname(file), name) : name;
  });
}

const SOURCES = LAYERS.flatMap(sourcesOf);

Deno.test("arrows: every layer imports only itself and those below", () => {
  let arrows = 0;
  for (const file of ["cli.ts", ...SOURCES]) {
    const own = LAYERS.indexOf(file.split(/[/.]/)[0]);
    for (const target of importsOf(file).filter((name) => /\.(ts|json|zig)$/.test(name))) {
      if (target === "deno.json") continue;
      const layer = LAYERS.indexOf(target.split("/")[0]);
      assert.ok(layer >= own, `${file} imports ${target}`);
      assert.ok(
        fs.existsSync(path.join(ROOT, target)),
        `${file} imports ${target}, which is not there`,
      );
      if (layer > own) arrows++;
    }
  }
  assert.ok(arrows > 50, `only ${arrows} imports between layers were seen`);
});

Deno.test("arrows: code generation is pure", () => {
  const files = sourcesOf("codegen");
  assert.ok(files.length > 20);
  for (const file of files) {
    const foreign = importsOf(file).filter((name) => !name.startsWith("codegen/"));
    assert.deepEqual(foreign, [], file);
    const impure = /\b(Deno|Bun|process|fetch|performance|Date|setTimeout)\s*[.(]|Math\.random/;
    assert.doesNotMatch(codeOf(file), impure, file);
  }
});

Deno.test("arrows: only kernels/ffi.ts opens native libraries", () => {
  const openers = ["cli.ts", ...SOURCES].filter((file) =>
    /\bdlopen\b|["']bun:ffi["']|\bUnsafe(Pointer|FnPointer|Callback)/.test(codeOf(file))
  );
  assert.deepEqual(openers, ["kernels/ffi.ts"]);
});

Deno.test("arrows: every package that is imported is in the import map", () => {
  const { imports } = JSON.parse(textOf("deno.json"));
  for (const file of SOURCES) {
    const packages = importsOf(file)
      .filter((name) => !/^(node:|bun:)/.test(name) && !fs.existsSync(path.join(ROOT, name)));
    for (const name of packages) {
      const [, bare] = /^((?:@[^/]+\/)?[^/]+)/.exec(name)!;
      assert.ok(bare in imports, `${file} imports ${name}`);
    }
  }
});
