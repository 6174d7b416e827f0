import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { hubCacheFolder, hubSettings } from "./settings.ts";

function settings(variables: Record<string, string>) {
  return hubSettings((name) => variables[name] || null);
}

function cache(variables: Record<string, string>) {
  return hubCacheFolder((name) => variables[name] || null);
}

Deno.test({
  name: "hubSettings: the cache is where Python's tools look for it",
  ignore: Deno.build.os === "windows",
  fn() {
    assert.equal(cache({ HOME: "/h" }), "/h/.cache/huggingface/hub");
    assert.equal(cache({ HOME: "/h", XDG_CACHE_HOME: "/x" }), "/x/huggingface/hub");
    assert.equal(cache({ HOME: "/h", HF_HOME: "/hf", XDG_CACHE_HOME: "/x" }), "/hf/hub");
    assert.equal(cache({ HOME: "/h", HF_HOME: "~/hf" }), "/h/hf/hub");
    assert.equal(cache({ HF_HOME: "/hf", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
    assert.equal(cache({ HF_HUB_CACHE: "/new", HUGGINGFACE_HUB_CACHE: "/old" }), "/new");
  },
});

Deno.test("hubSettings: the endpoint of a mirror, and what is none", () => {
  const home = { HOME: "/h" };
  assert.equal(settings(home).endpoint, "https://huggingface.co");
  const mirror = { ...home, HF_ENDPOINT: "https://mirror.example.org/hf/" };
  assert.equal(settings(mirror).endpoint, "https://mirror.example.org/hf");
  for (const HF_ENDPOINT of ["mirror", "ftp://x", "https://me:secret@x/", "file:///etc"]) {
    assert.throws(() => settings({ ...home, HF_ENDPOINT }), { name: "UsageError" });
  }
});

Deno.test("hubSettings: the token from the environment, else from its file", () => {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "trilith-hf-"));
  try {
    assert.equal(settings({ HF_HOME: home }).token, null);
    fs.writeFileSync(path.join(home, "token"), "hf_file\n");
    assert.equal(settings({ HF_HOME: home }).token, "hf_file");
    assert.equal(settings({ HF_HOME: home, HF_TOKEN: " hf_env\r\n" }).token, "hf_env");
    assert.equal(settings({ HF_HOME: home, HUGGING_FACE_HUB_TOKEN: "hf_old" }).token, "hf_old");
    fs.writeFileSync(path.join(home, "other"), "hf_other");
    const HF_TOKEN_PATH = path.join(home, "other");
    assert.equal(settings({ HF_HOME: home, HF_TOKEN_PATH }).token, "hf_other");
    const HF_HUB_DISABLE_IMPLICIT_TOKEN = "1";
    assert.equal(
      settings({ HF_TOKEN: "x", HOME: home, HF_HUB_DISABLE_IMPLICIT_TOKEN }).token,
      null,
    );
  } finally {
    fs.rmSync(home, { recursive: true });
  }
});

Deno.test("hubSettings: offline by any of Python's words, and its timeout", () => {
  for (const value of ["1", "on", "YES", "True"]) {
    assert.ok(settings({ HOME: "/h", HF_HUB_OFFLINE: value }).isOffline, value);
  }
  for (const value of ["0", "no", "false", ""]) {
    assert.ok(!settings({ HOME: "/h", HF_HUB_OFFLINE: value }).isOffline, value);
  }
  assert.ok(settings({ HOME: "/h", TRANSFORMERS_OFFLINE: "1" }).isOffline);
  assert.equal(settings({ HOME: "/h", HF_HUB_DOWNLOAD_TIMEOUT: "7" }).stallMs, 7000);
  assert.equal(settings({ HOME: "/h" }).stallMs, 30_000);
});
