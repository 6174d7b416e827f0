/** The library as others get it: its examples run, and what is published is whole and typed. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { inFolder } from "../kernels/test_helpers.ts";
import { runCli } from "./cli_process.ts";
import { ROOT } from "./paths.ts";

/** What each prints. */
const EXAMPLES: Record<string, RegExp> = {
  "compare.ts": /^0\.\d+ nats apart, \d+(\.\d+)? % the same token\n$/,
  "generate.ts": /\n40 tokens, ended by length\n$/,
  "server.ts": /^.*\w+.*\n/,
  "zig.ts": /^avx2-\w+: \d{3,} lines of Zig\n\d+ bytes of packed weights\n$/,
};

Deno.test("every example has a test", () => {
  const files = fs.readdirSync(path.join(ROOT, "examples")).sort();
  assert.deepEqual(files, Object.keys(EXAMPLES));
});

for (const [name, printed] of Object.entries(EXAMPLES)) {
  Deno.test(`examples/${name} runs`, async () => {
    const file = path.join(ROOT, "examples", name);
    const { code, stdout, stderr } = await runCli([], { cache: cacheDirectory(), file });
    assert.equal(code, 0, stderr);
    assert.match(stdout, printed);
  });
}

/** As the README has it. */
const OTHERS_CONFIG = {
  links: [ROOT],
  imports: { "@trilith/trilith": "jsr:@trilith/trilith@^0.1.0" },
};

const OTHERS_PROGRAM = `
import { createApp, ModelHost } from "@trilith/trilith/api";
import { type ModelSpec, stepSource } from "@trilith/trilith/codegen";
import { type GenerationResult, loadModel } from "@trilith/trilith/runtime";

await using model = await loadModel();
const options = { maxTokens: 8, temperature: 0 };
const result: GenerationResult = await model.generate("Once upon a time", options);
const spec: Pick<ModelSpec, "hiddenAct"> = { hiddenAct: "silu" };
console.log([result.completionTokens, spec.hiddenAct, typeof stepSource, typeof createApp].join());
console.log(ModelHost.name);
`;

Deno.test("another project finds what is exported, by the package's name", () =>
  inFolder((folder) => {
    fs.writeFileSync(path.join(folder, "deno.json"), JSON.stringify(OTHERS_CONFIG));
    fs.writeFileSync(path.join(folder, "main.ts"), OTHERS_PROGRAM);
    const args = ["run", "-A", "main.ts"];
    const { status, output } = deno(args, { cwd: folder, TRILITH_CACHE: cacheDirectory() });
    assert.equal(status, 0, output);
    assert.match(output, /^8,silu,function,function\nModelHost$/m);
  }));

interface Surroundings {
  cwd?: string;
  TRILITH_CACHE?: string;
}

function deno(
  args: readonly string[],
  { cwd = ROOT, ...more }: Surroundings = {},
): { status: number | null; output: string } {
  const env = { ...process.env, NO_COLOR: "1", ...more };
  const { status, stdout, stderr } = spawnSync(Deno.execPath(), args, {
    cwd,
    encoding: "utf8",
    env,
  });
  return { status, output: stdout + stderr };
}

/** Types of npm packages, which can't be made ours. */
const FOREIGN = ["OpenAPIHono", "Registry"];

Deno.test("all that is exported is documented, and what its types name is exported too", () => {
  const { exports } = JSON.parse(fs.readFileSync(path.join(ROOT, "deno.json"), "utf8"));
  const modules = [...new Set(Object.values<string>(exports))];
  const { output } = deno(["doc", "--lint", ...modules]);
  const findings = output.split("\n\n\n").filter((text) => /^error\[/m.test(text));
  const others = findings.filter((text) =>
    !FOREIGN.some((name) => text.includes(`references private type '${name}'`))
  );
  assert.equal(findings.length - others.length, FOREIGN.length, output.slice(0, 2000));
  assert.deepEqual(others, []);
});

Deno.test("deno publish takes the package: no slow types, no tests in it", () => {
  const { status, output } = deno(["publish", "--dry-run", "--allow-dirty"]);
  assert.equal(status, 0, output);
  assert.doesNotMatch(output, /error\[/);
  assert.match(output, /kernels\/zig\/host\.zig/);
  assert.match(output, /models\/story\/model\.safetensors/);
  assert.doesNotMatch(output, /_test\.ts|\/(?:fake|test)_\w+\.ts|_once\.ts/);
});

/** Files that a module of a package asks for and that are not in it. */
function missingImports(folder: string, module: string): string[] {
  const text = fs.readFileSync(path.join(folder, module), "utf8");
  const asked = text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["'](\.{1,2}\/[^"']+)["']/g);
  return [...asked]
    .map(([, relative]) => path.join(path.dirname(module), relative))
    .filter((file) => !fs.existsSync(path.join(folder, file)))
    .map((file) => `${module}: ${file}`);
}

Deno.test("what deno pack makes is whole: its own package.json, and all that its modules ask for", () =>
  inFolder((folder) => {
    const { status, output } = deno(["pack", "--allow-dirty", "-o", path.join(folder, "a.tgz")]);
    assert.equal(status, 0, output);
    const tar = (flags: string) =>
      spawnSync("tar", [flags, "a.tgz"], { cwd: folder, encoding: "utf8" }).stdout;
    const names = tar("-tzf").trim().split("\n");
    assert.equal(new Set(names).size, names.length);
    tar("-xzf");
    const root = path.join(folder, "package");
    const { exports } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
    for (const { types, default: module } of Object.values<Record<string, string>>(exports)) {
      assert.ok([types, module].every((file) => fs.existsSync(path.join(root, file))), module);
    }
    const modules = names.filter((name) => /\.(?:d\.ts|js)$/.test(name))
      .map((name) => path.relative("package", name));
    assert.ok(modules.length > 300);
    assert.deepEqual(modules.flatMap((module) => missingImports(root, module)), []);
  }));
