/** What a pull leaves in the cache, and what it asks for. Faults are in pull_faults_test.ts. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { Progress } from "../types.ts";
import { COMMIT_A, COMMIT_B, etagOf, type Seen, someBytes, textFile } from "./fake_hub.ts";
import { locateModel } from "./locate.ts";
import { MODEL, PIECES, someRepo, WEIGHTS, withHub } from "./test_bench.ts";

Deno.test("pull: what a model needs lies as the hub's cache has it", async () => {
  await withHub(async ({ hub, cache, folder, pull, leftovers }) => {
    const report = await pull();
    const snapshot = path.join(folder, "snapshots", COMMIT_A);
    const names = ["config.json", "model.safetensors", "tokenizer.json"];
    assert.deepEqual(fs.readdirSync(snapshot).sort(), names);
    assert.deepEqual(report.files.map((file) => [file.path, file.state]).sort(), [
      ["config.json", "fetched"],
      ["model.safetensors", "fetched"],
      ["tokenizer.json", "fetched"],
    ]);
    assert.equal(report.path, snapshot);
    assert.equal(report.commit, COMMIT_A);
    assert.equal(fs.readFileSync(path.join(folder, "refs", "main"), "utf8"), COMMIT_A);
    const weights = path.join(snapshot, "model.safetensors");
    assert.deepEqual(new Uint8Array(fs.readFileSync(weights)), WEIGHTS.content);
    assert.equal(
      fs.readlinkSync(weights),
      path.join("..", "..", "blobs", etagOf(WEIGHTS)),
    );
    assert.match(fs.readFileSync(path.join(cache, "CACHEDIR.TAG"), "utf8"), /^Signature: 8a477f59/);
    assert.deepEqual(leftovers(), []);
    assert.equal(hub.transfers.filter(({ origin }) => origin === "storage").length, PIECES);
    assert.equal(locateModel(MODEL, cache), snapshot);
  });
});

Deno.test("pull: what is here is not fetched again, nor after the branch has moved", async () => {
  const repo = someRepo();
  await withHub(async ({ hub, cache, folder, pull }) => {
    await pull();
    hub.seen.length = 0;
    const again = await pull();
    assert.equal(hub.transfers.length, 0);
    assert.equal(again.neededBytes, 0);
    assert.ok(again.files.every(({ state }) => state === "present"));
    repo.commit = COMMIT_B;
    repo.files["tokenizer.json"] = textFile('{"new": 1}');
    const moved = await pull();
    const fetched: Seen[] = hub.transfers;
    assert.deepEqual(fetched.map((seen) => path.basename(seen.path)), ["tokenizer.json"]);
    assert.equal(moved.commit, COMMIT_B);
    assert.equal(locateModel(MODEL, cache), path.join(folder, "snapshots", COMMIT_B));
    assert.ok(fs.existsSync(path.join(folder, "snapshots", COMMIT_A, "model.safetensors")));
  }, repo);
});

Deno.test("pull: revisions by branch, tag and commit", async () => {
  const repo = { ...someRepo(), branches: { "v1.0": COMMIT_B, "refs/pr/1": "c".repeat(40) } };
  await withHub(async ({ cache, folder, pull }) => {
    await pull({}, `${MODEL}@v1.0`);
    assert.equal(fs.readFileSync(path.join(folder, "refs", "v1.0"), "utf8"), COMMIT_B);
    await pull({}, `${MODEL}@refs/pr/1`);
    assert.ok(fs.existsSync(path.join(folder, "refs", "refs", "pr", "1")));
    await pull({}, `${MODEL}@${COMMIT_A}`);
    assert.ok(!fs.existsSync(path.join(folder, "refs", COMMIT_A)));
    const at = (revision: string) => locateModel(`${MODEL}@${revision}`, cache);
    assert.equal(at("v1.0"), path.join(folder, "snapshots", COMMIT_B));
    assert.equal(at("aaaaaaaa"), path.join(folder, "snapshots", COMMIT_A));
    assert.throws(() => locateModel(MODEL, cache), /Cannot tell which revision/);
    await assert.rejects(pull({}, `${MODEL}@v9`), /no such revision/);
  }, repo);
});

Deno.test("pull: a listing of many pages, files in folders, and one of no bytes", async () => {
  const repo = someRepo();
  repo.files["1_Pooling/config.json"] = textFile('{"pooling": "last"}');
  repo.files["merges.txt"] = textFile("");
  await withHub(async ({ hub, folder, pull }) => {
    hub.pageSize = 2;
    await pull();
    const snapshot = path.join(folder, "snapshots", COMMIT_A);
    const pooling = path.join(snapshot, "1_Pooling", "config.json");
    assert.equal(fs.readFileSync(pooling, "utf8"), '{"pooling": "last"}');
    assert.match(fs.readlinkSync(pooling), /^\.\.[\\/]\.\.[\\/]\.\.[\\/]blobs/);
    assert.equal(fs.statSync(path.join(snapshot, "merges.txt")).size, 0);
    assert.equal(hub.seen.filter((seen) => seen.path.includes("/tree/")).length, 5);
  }, repo);
});

Deno.test("pull: a GGUF file by a word of its name is what is opened", async () => {
  const repo = {
    files: {
      "README.md": textFile("x"),
      "m-TQ2_0.gguf": { content: someBytes(20_000, 5), isLarge: true },
      "m-F16.gguf": { content: someBytes(30_000, 6), isLarge: true },
    },
  };
  await withHub(async ({ cache, folder, pull }) => {
    const opened = (name: string) => path.join(folder, "snapshots", COMMIT_A, name);
    assert.equal((await pull({}, `${MODEL}:f16`)).path, opened("m-F16.gguf"));
    assert.equal(locateModel(MODEL, cache), opened("m-F16.gguf"));
    assert.throws(() => locateModel(`${MODEL}:TQ2_0`, cache), { name: "NotPulledError" });
    assert.equal((await pull()).path, opened("m-TQ2_0.gguf"));
    assert.equal(locateModel(`${MODEL}:tq2_0`, cache), opened("m-TQ2_0.gguf"));
  }, repo);
});

Deno.test("pull --dry-run says what would come, and writes nothing", async () => {
  await withHub(async ({ hub, cache, pull }) => {
    const report = await pull({ dryRun: true });
    assert.equal(report.neededBytes, WEIGHTS.content.length + 24 + 2);
    assert.ok(report.files.every(({ state }) => state === "missing"));
    assert.deepEqual(hub.transfers, []);
    assert.deepEqual(fs.readdirSync(cache), []);
  });
});

Deno.test("pull: progress counts each byte once, up to all of them", async () => {
  await withHub(async ({ pull }) => {
    const seen: Progress[] = [];
    const { bytes } = await pull({ onProgress: (progress) => seen.push(progress) });
    const fetching = seen.filter(({ message }) => message.startsWith("Fetching"));
    assert.ok(fetching.length > 3);
    assert.ok(fetching.every(({ done, total }) => total === bytes && done! >= 0 && done! < bytes));
    const last = seen.at(-1)!;
    assert.deepEqual([last.message, last.done, last.total], [`Checking ${MODEL}`, bytes, bytes]);
  });
});

Deno.test("pull: the token goes to the hub and to nobody else", async () => {
  await withHub(async ({ hub, pull }) => {
    hub.wantedToken = "hf_secret";
    await assert.rejects(pull(), /not public \(401\): check the name, or set HF_TOKEN/);
    await assert.rejects(pull({ token: "hf_other" }), /the token in HF_TOKEN or in HF_HOME/);
    hub.seen.length = 0;
    await pull({ token: "hf_secret" });
    for (const { origin, authorization } of hub.seen) {
      assert.equal(authorization, origin === "hub" ? "Bearer hf_secret" : null);
    }
    assert.ok(hub.seen.some(({ origin }) => origin === "storage"));
  });
});

Deno.test("pull: a token is not sent unencrypted to another machine", async () => {
  await withHub(async ({ pull }) => {
    const unencrypted = pull({ token: "hf_secret", endpoint: "http://mirror.invalid" });
    await assert.rejects(unencrypted, /Cannot send your token to http:\/\/mirror\.invalid/);
  });
});

Deno.test("pull: offline nothing is asked, and the message says so", async () => {
  await withHub(async ({ hub, pull }) => {
    await assert.rejects(pull({ isOffline: true }), {
      name: "HubError",
      message: /HF_HUB_OFFLINE forbids requests/,
    });
    assert.deepEqual(hub.seen, []);
  });
});

Deno.test("pull: connections are as many as were asked for, at most", async () => {
  await withHub(async ({ hub, pull }) => {
    let running = 0;
    let most = 0;
    hub.fault = async ({ origin }) => {
      if (origin !== "storage") return false;
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
      return false;
    };
    await pull({ connections: 2 });
    assert.equal(most, 2);
    await assert.rejects(pull({ connections: 0 }), { name: "UsageError" });
  });
});
