/** The same command line in Bun: the same tokens, text and bits as in Deno, and Ctrl-C ends both. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { inFolder } from "../kernels/test_helpers.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { documentOf, type Ended, runCli, startCli } from "./cli_process.ts";
import { fixturePath } from "./fixtures.ts";
import { goldenModel } from "./golden_models.ts";
import { bun, testWith } from "./tools.ts";

const GOLDEN = goldenModel("bitnet-2b4t-packed").folder;
const GGUF = fixturePath("models-gguf/llama3-158-TQ2_0.gguf");

/** Both runtimes' results of one command. */
async function inBoth(
  bunCommand: readonly string[],
  args: readonly string[],
): Promise<[Ended, Ended]> {
  const cache = cacheDirectory();
  const inDeno = await runCli(args, { cache });
  const inBun = await runCli(args, { cache, runtime: [...bunCommand, "run"] });
  return [inDeno, inBun];
}

testWith(bun(), "bun: generate gives the same tokens and text", async (command) => {
  for (const model of [embeddedModelFolder(), GOLDEN]) {
    const args = ["generate", "Once upon a time", "--model", model, "--json", "--quiet"];
    for (const more of [["--temperature", "0"], ["--temperature", "0.9", "--seed", "5"]]) {
      const both = await inBoth(command, [...args, ...more, "--max-tokens", "16"]);
      const [a, b] = both.map(documentOf);
      assert.ok(a.tokenIds.length > 1);
      for (const field of ["model", "promptTokens", "tokenIds", "text", "finishReason"]) {
        assert.deepEqual(b[field], a[field], field);
      }
      assert.equal(both[1].stderr, "");
    }
  }
});

testWith(bun(), "bun: drafts change no token there either", async (command) => {
  const args = ["generate", "one two three four one two three four one two", "--model", GOLDEN];
  const more = ["--json", "--quiet", "--temperature", "0.3", "--seed", "2", "--max-tokens", "24"];
  const plain = await inBoth(command, [...args, ...more, "--speculate", "off"]);
  for (const speculate of ["auto", "6"]) {
    const drafted = await inBoth(command, [...args, ...more, "--speculate", speculate]);
    for (const ended of drafted) {
      const { tokenIds, timings } = documentOf(ended);
      assert.deepEqual(tokenIds, documentOf(plain[0]).tokenIds);
      if (speculate !== "auto") assert.ok(timings.draftTokens > 0);
    }
  }
  assert.deepEqual(documentOf(plain[1]).tokenIds, documentOf(plain[0]).tokenIds);
});

testWith(bun(), "bun: logits are the same bits, native and reference", async (command) => {
  const args = ["logits", "--ids", "1,20,300,4,5", "--model", GOLDEN, "--json", "--quiet"];
  const texts = new Set<string>();
  for (const kernels of ["auto", "reference"]) {
    for (const ended of await inBoth(command, [...args, "--kernels", kernels])) {
      assert.equal(documentOf(ended).positions.length, 5);
      texts.add(ended.stdout);
    }
  }
  assert.equal(texts.size, 1);
});

testWith(bun(), "bun: tokenize and inspect print the same", async (command) => {
  for (const args of [["tokenize", "Zoë's 12 dogs", "--json"], ["inspect", GOLDEN, "--json"]]) {
    const [inDeno, inBun] = await inBoth(command, args);
    assert.deepEqual(documentOf(inBun), documentOf(inDeno));
  }
});

testWith(bun(), "bun: a GGUF file has the same logits", async (command) => {
  const args = ["logits", "--model", GGUF, "--ids", "1,2,3", "--json", "--quiet"];
  const [a, b] = await inBoth(command, args);
  assert.deepEqual(documentOf(b).positions, documentOf(a).positions);
});

testWith(bun(), "bun: convert writes the same bytes", async (command) => {
  await inFolder(async (folder) => {
    for (const [source, name] of [[GGUF, "a.gguf"], [GOLDEN, "a"], [GOLDEN, "a.trilith"]]) {
      const outputs = ["deno", "bun"].map((runtime) => path.join(folder, runtime, name));
      for (const output of outputs) fs.mkdirSync(path.dirname(output), { recursive: true });
      const runtimes = [undefined, [...command, "run"]];
      for (const [i, runtime] of runtimes.entries()) {
        const args = ["convert", source, outputs[i], "--json", "--quiet"];
        const { code, stderr } = await runCli(args, { cache: cacheDirectory(), runtime });
        assert.equal(code, 0, stderr);
      }
      const [a, b] = outputs.map((output) =>
        fs.readFileSync(name === "a" ? path.join(output, "model.safetensors") : output)
      );
      assert.deepEqual(b, a);
    }
  });
});

/** Long enough that nobody waits for its end. */
const LONG = [
  ...["generate", "Once", "--model", GOLDEN, "--ignore-eos", "--temperature", "0"],
  ...["--ctx", "30000", "--max-tokens", "29000"],
];

/** Ctrl-C after the first text. */
async function interrupted(runtime: readonly string[] | undefined): Promise<Ended> {
  const { child, ended } = startCli(LONG, { cache: cacheDirectory(), runtime });
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  process.kill(child.pid!, "SIGINT");
  return await ended;
}

function assertStopped({ code, stdout, stderr }: Ended): void {
  assert.equal(code, 130, stderr);
  assert.ok(stdout.endsWith("\n"));
  assert.match(stderr, / · stopped\n$/);
}

testWith({ command: [] }, "deno: Ctrl-C while native code runs prints what there is", async () => {
  if (process.platform !== "win32") assertStopped(await interrupted(undefined));
});

testWith(bun(), "bun: Ctrl-C while native code runs prints what there is", async (command) => {
  if (process.platform !== "win32") assertStopped(await interrupted([...command, "run"]));
});
