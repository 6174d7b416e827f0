/** Each command runs with the exact permissions that are listed for it, and with none fewer. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { cacheDirectory } from "../kernels/cache.ts";
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { FakeHub } from "../runtime/hub/fake_hub.ts";
import type { Ended } from "./cli_process.ts";
import { ZIG } from "./machine.ts";
import { CLI, ROOT } from "./paths.ts";
import {
  cachePermissions,
  convertPermissions,
  flagsOf,
  listPermissions,
  nativePermissions,
  type Permissions,
  type Places,
  pullPermissions,
  readingPermissions,
  referencePermissions,
  removePermissions,
  servePermissions,
  shortened,
} from "./permissions.ts";
import { withFolder } from "./safetensors_file.ts";
import { until } from "./serve_process.ts";

const MODEL = embeddedModelFolder();

/** Not node:child_process, which hands this process's permissions on. */
function commandOf(
  flags: readonly string[],
  args: readonly string[],
  cache: string,
  more: Readonly<Record<string, string>> = {},
): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...flags, CLI, ...args],
    clearEnv: true,
    env: {
      ...Object.fromEntries(
        ["PATH", "HOME", "DENO_DIR"].map((name) => [name, process.env[name] ?? ""]),
      ),
      TRILITH_CACHE: cache,
      TRILITH_ZIG: ZIG.path,
      NO_COLOR: "1",
      ...more,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function run(
  flags: readonly string[],
  args: readonly string[],
  cache: string,
  more?: Readonly<Record<string, string>>,
): Promise<Ended> {
  const { code, stdout, stderr } = await commandOf(flags, args, cache, more).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A cache with room for a model's files, and the places that the lists depend on. */
async function withPlaces(use: (places: Places) => Promise<void>): Promise<void> {
  await withFolder({}, (folder) => {
    const cache = path.join(folder, "cache");
    return use({ cache, zig: ZIG.path, model: MODEL });
  });
}

const GENERATE = ["generate", "Once upon a time", "--max-tokens", "4", "--temperature", "0"];

async function assertRuns(
  permissions: Permissions,
  args: readonly string[],
  cache: string,
  more?: Readonly<Record<string, string>>,
): Promise<Ended> {
  const ended = await run(flagsOf(permissions), args, cache, more);
  assert.equal(ended.code, 0, `${args.join(" ")}: ${ended.stderr}`);
  assert.notEqual(ended.stdout, "");
  return ended;
}

/** Fewer permissions must be told by name, in one line. */
async function assertNoneIsTooMany(
  permissions: Permissions,
  args: readonly string[],
  cache: string,
  more?: Readonly<Record<string, string>>,
): Promise<void> {
  for (const { without, flags } of shortened(permissions)) {
    const { code, stdout, stderr } = await run(flags, args, cache, more);
    assert.equal(code, 1, `${args.join(" ")} runs without ${without}`);
    assert.equal(stdout, "");
    assert.match(stderr, /^error: [^\n]*--allow-[a-z]+[^\n]*\n$/, without);
  }
}

Deno.test("permissions: generate, on an empty cache and on a warm one, needs exactly its list", async () => {
  await withPlaces(async (places) => {
    const permissions = nativePermissions(places);
    const first = await assertRuns(permissions, GENERATE, places.cache);
    const second = await assertRuns(permissions, GENERATE, places.cache);
    assert.equal(second.stdout, first.stdout);
    await assertNoneIsTooMany(permissions, GENERATE, places.cache);
    const commands = [
      ["logits", "--ids", "1,2"],
      ["bench", "--prompt-tokens", "4", "--gen-tokens", "2", "--repeat", "1"],
      ["perplexity", "--file", path.join(MODEL, "tokenizer_config.json"), "--ctx", "64"],
      ["embed", "Once", "Twice"],
      ["compare", "--b-kv-type", "f16", "--chunks", "1"],
      ["doctor"],
      ["tune", "--scheme", "multiply"],
    ];
    for (const args of commands) await assertRuns(permissions, args, places.cache);
  });
});

Deno.test("permissions: the reference needs neither native code nor programs", async () => {
  await withPlaces(async (places) => {
    const args = [...GENERATE, "--kernels", "reference"];
    await assertRuns(referencePermissions(places), args, places.cache);
    await assertNoneIsTooMany(referencePermissions(places), args, places.cache);
  });
});

Deno.test("permissions: looking at a model needs to read it alone", async () => {
  await withPlaces(async (places) => {
    const commands = [
      ["tokenize", "Once"],
      ["detokenize", "--ids", "1,2"],
      ["inspect", MODEL],
      ["kernels", "show", "--isa", "portable"],
    ];
    for (const args of commands) {
      await assertRuns(readingPermissions(places), args, places.cache);
      await assertNoneIsTooMany(readingPermissions(places), args, places.cache);
    }
  });
});

Deno.test("permissions: the cache's commands need the cache alone", async () => {
  await withPlaces(async (places) => {
    for (const args of [["kernels", "list", "--json"], ["kernels", "clear"]]) {
      await assertRuns(cachePermissions(places), args, places.cache);
      await assertNoneIsTooMany(cachePermissions(places), args, places.cache);
    }
  });
});

Deno.test("permissions: convert needs the model and the folder of what it writes", async () => {
  await withPlaces(async (places) => {
    const folder = path.dirname(places.cache);
    const permissions = convertPermissions(places, folder);
    for (const name of ["story.gguf", "story"]) {
      const args = ["convert", MODEL, path.join(folder, name)];
      await assertNoneIsTooMany(permissions, args, places.cache);
      await assertRuns(permissions, args, places.cache);
    }
  });
});

Deno.test("permissions: list, pull and rm need the hub's cache, its hosts, and ours to delete in", async () => {
  const files = Object.fromEntries(
    fs.readdirSync(MODEL).map((
      name,
    ) => [name, { content: fs.readFileSync(path.join(MODEL, name)) }]),
  );
  const weights = { ...files["model.safetensors"], isLarge: true };
  await using fake = await FakeHub.start({
    "some/story": { files: { ...files, "model.safetensors": weights } },
  });
  await withPlaces(async (places) => {
    const home = path.join(path.dirname(places.cache), "huggingface");
    const hub = path.join(home, "hub");
    const { cache } = places;
    const more = { HF_HOME: home, HF_ENDPOINT: fake.endpoint };
    const hosts = [fake.endpoint, fake.storage].map((url) => new URL(url).host);
    const { "--allow-env": names, ...others } = pullPermissions(hub, hosts);
    // The variable is what makes this machine the hub.
    const pull = { ...others, "--allow-env": [...names, "HF_ENDPOINT"] };
    await assertNoneIsTooMany(pull, ["pull", "some/story", "--quiet"], cache, more);
    await assertRuns(pull, ["pull", "some/story", "--quiet"], cache, more);
    const list = listPermissions(hub);
    const { stdout } = await assertRuns(list, ["list"], cache, more);
    assert.match(stdout, /\nsome\/story .* yes /);
    await assertNoneIsTooMany(list, ["list"], cache, more);
    await assertRuns({ "--allow-env": ["TRILITH_UNUSED"] }, ["list", "--remote"], cache, more);
    const remove = removePermissions(places, hub);
    await assertNoneIsTooMany(remove, ["rm", "some/story", "--yes"], cache, more);
    await assertRuns(remove, ["rm", "some/story", "--yes"], cache, more);
  });
});

/** A port that nobody listens on. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** Serves one completion, and ends by SIGTERM. */
async function assertServes(
  permissions: Permissions,
  args: readonly string[],
  { cache, url }: { cache: string; url: string },
): Promise<void> {
  const child = commandOf(flagsOf(permissions), args, cache).spawn();
  const isReady = async () => {
    const response = await fetch(`${url}/health`).catch(() => null);
    await response?.body?.cancel();
    return response?.ok ?? false;
  };
  await until(isReady);
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Once", max_tokens: 2 }),
  });
  assert.equal((await response.json()).usage.completion_tokens, 2);
  for (const path of ["/", "/docs", "/metrics"]) {
    assert.equal((await (await fetch(`${url}${path}`)).text()).length > 100, true, path);
  }
  child.kill("SIGTERM");
  const { code, stderr } = await child.output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}

Deno.test("permissions: serve needs exactly its list, with one address", async () => {
  // That a cache may be empty is generate's test.
  const places = { cache: cacheDirectory(), zig: ZIG.path, model: MODEL };
  const port = freePort();
  const args = ["serve", "--port", String(port), "--quiet"];
  const permissions = servePermissions(places, `127.0.0.1:${port}`);
  const url = `http://127.0.0.1:${port}`;
  await assertServes(permissions, args, { cache: places.cache, url });
  await assertNoneIsTooMany(permissions, args, places.cache);
});

Deno.test("permissions: deno.json's set for serve is this list, with a cache beside it", () => {
  const { permissions: { serve } } = JSON.parse(
    fs.readFileSync(path.join(ROOT, "deno.json"), "utf8"),
  );
  const { env, net, run, ...files } = serve as Record<string, string[]>;
  const places = { cache: path.join(ROOT, ".cache"), zig: "zig", model: path.join(ROOT, "models") };
  const expected = servePermissions(places, "127.0.0.1:8080");
  for (const [name, values] of Object.entries(files)) {
    const absolute = values.map((value) => path.join(ROOT, value));
    assert.deepEqual(absolute, expected[`--allow-${name}`], name);
  }
  assert.deepEqual(Object.keys(files), ["read", "write", "ffi"]);
  assert.deepEqual(run, expected["--allow-run"]);
  assert.deepEqual(net, expected["--allow-net"]);
  // Every flag of serve is a variable as well.
  assert.deepEqual(env, ["TRILITH_*", "NODE_V8_COVERAGE"]);
});
