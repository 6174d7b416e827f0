/** pull, list, rm, and names of the hub for --model. */
import assert from "node:assert/strict";
import { NotPulledError } from "../runtime/hub/locate.ts";
import type { ModelRemoval } from "../runtime/hub/models.ts";
import type { PullOptions } from "../runtime/hub/pull.ts";
import type { InspectReport } from "../runtime/reports.ts";
import { INSPECT_REPORT, LOCAL_MODEL, MODEL_REMOVAL, PULL_REPORT, run } from "./test_helpers.ts";

/** An engine that notes what is pulled. */
function pulling() {
  const pulled: { text: string; options: PullOptions }[] = [];
  const pullModel = (text: string, options: PullOptions) => {
    pulled.push({ text, options });
    options.onPlan?.({ ...PULL_REPORT, files: [{ ...PULL_REPORT.files[0], state: "missing" }] });
    options.onNotice?.("The server answers 429: trying again in 1.0 s");
    return Promise.resolve(PULL_REPORT);
  };
  return { pulled, pullModel };
}

Deno.test("pull passes its flags on, and says what is fetched on standard error", async () => {
  const { pulled, pullModel } = pulling();
  const args = "pull a/b --include *.json --include *.gguf --exclude x --connections 8 --dry-run";
  const { code, stderr } = await run(args.split(" "), { engine: { pullModel } });
  assert.equal(code, 0);
  const { text, options: { include, exclude, connections, dryRun } } = pulled[0];
  assert.deepEqual({ text, include, exclude, connections, dryRun }, {
    text: "a/b",
    include: ["*.json", "*.gguf"],
    exclude: ["x"],
    connections: 8,
    dryRun: true,
  });
  assert.equal(
    stderr,
    "Fetching 1 file, 12 B, of some/model at 01234567\n" +
      "The server answers 429: trying again in 1.0 s\n",
  );
  const quiet = await run(["pull", "a/b", "--quiet"], { engine: { pullModel } });
  assert.equal(quiet.stderr, "");
  assert.match(quiet.stdout, /^Fetched 12 B in 0\.50 s\n.*\nTry it: .* --model some\/model /);
});

Deno.test("pull says what the model is for, or why it does not run", async () => {
  const tryIt = async (report: Partial<InspectReport>) => {
    const inspectModel = () => Promise.resolve({ ...INSPECT_REPORT, ...report });
    return (await run(["pull", "a/b"], { engine: { inspectModel } })).stdout.split("\n").at(-2);
  };
  assert.equal(await tryIt({}), 'Try it: trilith generate --model some/model "Once upon a time"');
  assert.equal(await tryIt({ chatTemplate: "{}" }), "Try it: trilith chat --model some/model");
  const prompts = { texts: {}, defaultName: null, arePooled: true };
  const embedding = { pooling: "last", normalize: true, prompts } as const;
  assert.match((await tryIt({ embedding }))!, /^Try it: trilith embed --model some\/model "/);
  assert.match((await tryIt({ quantize: "absmean" }))!, / --quantize absmean$/);
  const inspectModel = () => Promise.reject(new Error("Cannot run this model: no\nmore"));
  const { code, stdout } = await run(["pull", "a/b"], { engine: { inspectModel } });
  assert.equal(code, 0);
  assert.match(stdout, /\nIt does not run here: Cannot run this model: no\n$/);
});

Deno.test("pull --json is the report, and wrong flags are wrong usage", async () => {
  const { stdout } = await run(["pull", "a/b", "--json"]);
  assert.deepEqual(JSON.parse(stdout), PULL_REPORT);
  for (const flags of [["--connections", "0"], ["--include", ""]]) {
    assert.equal((await run(["pull", "a/b", ...flags])).code, 2);
  }
  assert.equal((await run(["pull"])).code, 2);
});

Deno.test("list shows what is here; --remote what could be", async () => {
  assert.deepEqual(JSON.parse((await run(["list", "--json"])).stdout), [LOCAL_MODEL]);
  assert.match((await run(["ls"])).stdout, /\nsome\/model +01234567 +safetensors +1\.18 GB +yes /);
  const nothing = await run(["list"], { engine: { listModels: () => Promise.resolve([]) } });
  assert.equal(nothing.stdout, "");
  assert.match(nothing.stderr, /No models are in the hub's cache yet/);
  const { remoteModels } = await import("../runtime/hub/remote_models.ts");
  const engine = { remoteModels: () => Promise.resolve(remoteModels()) };
  const { stdout } = await run(["list", "--remote"], { engine });
  assert.match(stdout, /\nbitnet-2b-4t +microsoft\/bitnet-b1\.58-2B-4T +MIT +1\.18 GB /);
});

Deno.test("rm asks a person, wants --yes of a script, and deletes what it has shown", async () => {
  const removed: ModelRemoval[] = [];
  const removeModels = (removal: ModelRemoval) => {
    removed.push(removal);
    return Promise.resolve();
  };
  const engine = { removeModels };
  const rm = (flags: string[], scene = {}) =>
    run(["rm", "some/model", ...flags], { engine, ...scene });
  for (const flags of [[], ["--json"]]) {
    const { code, stderr } = await rm(flags);
    assert.equal(code, 2);
    assert.match(stderr, /2 files, 1\.18 GB, and 1\.00 GB packed\).*add --yes/);
  }
  for (const typed of [["n"], [""], [], [null]]) {
    assert.equal((await rm([], { isTerminal: true, typed })).code, 1);
  }
  assert.deepEqual(removed, []);
  assert.equal((await rm([], { isTerminal: true, typed: ["y"] })).code, 0);
  assert.match((await rm(["--yes"])).stdout, /^Deleted some\/model \(2 files/);
  assert.equal(JSON.parse((await rm(["-y", "--json"])).stdout).bytes, MODEL_REMOVAL.bytes);
  assert.deepEqual(removed, [MODEL_REMOVAL, MODEL_REMOVAL, MODEL_REMOVAL]);
});

Deno.test("--model: a name of the hub is opened from its cache, and fetched only with --pull", async () => {
  const { pulled, pullModel } = pulling();
  let isHere = false;
  const locateModel = (text: string) =>
    isHere
      ? Promise.resolve(`/hub/${text}`)
      : Promise.reject(new NotPulledError(`\`trilith pull ${text}\` fetches it`));
  const pull: typeof pullModel = (text, options) => {
    isHere = true;
    return pullModel(text, options);
  };
  const engine = { locateModel, pullModel: pull };
  const missing = await run(["generate", "x", "--model", "a/b"], { engine });
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /^error: `trilith pull a\/b` fetches it\n$/);
  assert.equal(pulled.length, 0);
  const fetched = await run(["generate", "x", "--model", "a/b", "--pull"], { engine });
  assert.equal(fetched.loads[0].path, "/hub/a/b");
  const again = await run(["generate", "x", "--model", "a/b", "--pull"], { engine });
  assert.equal(again.loads[0].path, "/hub/a/b");
  assert.equal(pulled.length, 1);
});
