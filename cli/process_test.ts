/** What only a real process shows: pipes, signals, permissions, what is loaded at the start. */
import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const FOLDER = path.dirname(fileURLToPath(import.meta.url));
const FAKE_CLI = path.join(FOLDER, "fake_cli.ts");
const REAL_CLI = path.join(FOLDER, "..", "cli.ts");
const IS_DENO = "Deno" in globalThis;
const IS_WINDOWS = process.platform === "win32";
/** A process that hangs must not hang the tests. */
const LIMIT_MS = 30_000;

/** Deno's child_process adds -A to a \`deno run\` that has no permission flag at all. */
const NOTHING = ["--allow-env=TRILITH_UNUSED"];

class Run {
  stdout = "";
  stderr = "";
  readonly #closed: Promise<unknown[]>;

  constructor(readonly child: ChildProcessWithoutNullStreams) {
    child.stdout.setEncoding("utf8").on("data", (text) => this.stdout += text);
    child.stderr.setEncoding("utf8").on("data", (text) => this.stderr += text);
    this.#closed = once(child, "close");
  }

  /** Not child.kill: in Deno that works only once. */
  kill(signal: "SIGINT" | "SIGKILL"): void {
    if (this.child.exitCode === null && this.child.pid) process.kill(this.child.pid, signal);
  }

  async code(): Promise<number | null> {
    const limit = setTimeout(() => this.kill("SIGKILL"), LIMIT_MS);
    const [code] = await this.#closed;
    clearTimeout(limit);
    return code as number | null;
  }

  async until(stream: "stdout" | "stderr", text: string): Promise<void> {
    const end = Date.now() + LIMIT_MS;
    while (!this[stream].includes(text)) {
      if (Date.now() > end) {
        this.kill("SIGKILL");
        assert.fail(`no ${JSON.stringify(text)} in ${stream}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

function start(args: string[], { file = FAKE_CLI, permissions = ["-A"] } = {}): Run {
  const runtimeArgs = IS_DENO ? ["run", ...permissions] : ["run"];
  const child = spawn(process.execPath, [...runtimeArgs, file, ...args], { stdio: "pipe" });
  // Whether the child still reads what we write is what some tests are about.
  child.stdin.on("error", () => {});
  return new Run(child);
}

Deno.test("process: exit codes are the shell's", async () => {
  const [done, usage] = [start(["generate", "y"]), start(["generate", "y", "--top-k", "x"])];
  assert.equal(await done.code(), 0);
  assert.equal(done.stdout, "z\n");
  assert.equal(await usage.code(), 2);
  assert.match(usage.stderr, /^error: [^\n]*\n$/);
});

Deno.test("process: a reader that closes the pipe ends it quietly", async () => {
  const run = start(["generate", "a", "--ignore-eos", "--max-tokens", "200"]);
  await run.until("stdout", "b");
  run.child.stdout.destroy();
  assert.equal(await run.code(), 0);
  assert.equal(run.stderr, "");
});

Deno.test("process: a co-process gets each answer before it sends the next line", async () => {
  const run = start(["tokenize", "--jsonl", "--no-bos"]);
  run.child.stdin.write('"a"\n');
  await run.until("stdout", "[97]\n");
  run.child.stdin.write('"é"\n');
  await run.until("stdout", "[195,169]\n");
  run.child.stdin.end();
  assert.equal(await run.code(), 0);
});

Deno.test("process: chat answers piped questions", async () => {
  const run = start(["chat", "--max-tokens", "2"]);
  run.child.stdin.end("one\ntwo\n");
  assert.equal(await run.code(), 0);
  assert.equal(run.stdout, "ab\nab\n");
});

Deno.test({
  name: "process: SIGINT prints what there is and exits with 130",
  ignore: IS_WINDOWS,
  async fn() {
    const run = start(["generate", "a", "--ignore-eos", "--max-tokens", "200"]);
    await run.until("stdout", "bcd");
    run.kill("SIGINT");
    assert.equal(await run.code(), 130);
    assert.match(run.stdout, /^bcd\w*\n$/);
    assert.match(run.stderr, /tokens\/s.* · stopped\n$/);
  },
});

Deno.test({
  name: "process: a second SIGINT ends what does not stop",
  ignore: IS_WINDOWS,
  async fn() {
    const run = start(["generate", "a", "--model", "stuck", "--json"]);
    await run.until("stderr", "Stuck");
    run.kill("SIGINT");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(run.child.exitCode, null);
    run.kill("SIGINT");
    assert.equal(await run.code(), 130);
    assert.equal(run.stdout, "");
  },
});

Deno.test({
  name: "process: without Deno's permissions one line names the flags",
  ignore: !IS_DENO,
  async fn() {
    const line = async (permissions: string[], args: string[]) => {
      const run = start(args, { file: REAL_CLI, permissions });
      run.child.stdin.end();
      assert.equal(await run.code(), 1);
      assert.match(run.stderr, /^error: [^\n]*\n$/);
      return run.stderr;
    };
    assert.match(await line(NOTHING, ["generate", "x"]), /add --allow-env/);
    const missing = await line(["--allow-env", "--allow-read"], ["generate", "x"]);
    assert.match(missing, /add --allow-write=\S+ to/);
    const files = ["--allow-env", "--allow-read", "--allow-write", "--allow-ffi"];
    assert.match(await line(files, ["generate", "x"]), /add --allow-run(=\S+)? to/);
    const reference = ["generate", "x", "--kernels", "reference"];
    assert.match(
      await line(["--allow-env", "--allow-read"], reference),
      /add --allow-write=\S+ to/,
    );
    assert.match(await line(NOTHING, ["tokenize", "x"]), /add --allow-read=\S+story to/);
  },
});

Deno.test({
  name: "process: tokenize needs to read the tokenizer and nothing more",
  ignore: !IS_DENO,
  async fn() {
    const story = path.join(FOLDER, "..", "models", "story");
    const permissions = [`--allow-read=${story}`];
    const run = start(["tokenize", "Hello", "--json"], { file: REAL_CLI, permissions });
    assert.equal(await run.code(), 0);
    assert.ok(JSON.parse(run.stdout).ids.length > 1);
  },
});

Deno.test("process: the engine and the tokenizer are loaded only when a command runs", () => {
  const loaded = new Set<string>();
  collectImports(REAL_CLI, loaded);
  const names = [...loaded].map((file) => path.relative(path.join(FOLDER, ".."), file));
  assert.ok(names.includes(path.join("cli", "generate.ts")), "the walk sees imports");
  for (const name of ["mod.ts", "engine.ts", "tokenizer.ts", "bench.ts"]) {
    assert.ok(!names.includes(path.join("runtime", name)), name);
  }
});

/** Files that `file` imports when it is loaded: not types, and not by `import()`. */
function collectImports(file: string, loaded: Set<string>): void {
  if (loaded.has(file)) return;
  loaded.add(file);
  const source = fs.readFileSync(file, "utf8");
  for (
    const [, specifier] of source.matchAll(
      /^(?:import|export) (?!type |const |function )[^;]*? from "(\.[^"]+)"/gm,
    )
  ) {
    if (specifier.endsWith(".ts")) collectImports(path.join(path.dirname(file), specifier), loaded);
  }
}
