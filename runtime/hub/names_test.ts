import assert from "node:assert/strict";
import fc from "fast-check";
import { CATALOGUE } from "./catalogue.ts";
import { hubNameText, isRepoId, isSafePath, parseHubName, requireHubName } from "./names.ts";

const HASH = "04c3b9ad9361b824064a1f25ea60a8be9599b127";

const NAMES: [text: string, repo: string, revision: string | null, file: string | null][] = [
  ["org/name", "org/name", null, null],
  ["hf:org/name", "org/name", null, null],
  ["hf://org/name@v1.0", "org/name", "v1.0", null],
  ["hf:gpt2", "gpt2", null, null],
  ["org/name:TQ2_0", "org/name", null, "TQ2_0"],
  [`org/name@${HASH}:sub/a b.gguf`, "org/name", HASH, "sub/a b.gguf"],
  ["hf:org/name@refs/pr/1", "org/name", "refs/pr/1", null],
  ["https://huggingface.co/org/name", "org/name", null, null],
  ["https://huggingface.co/org/name/", "org/name", null, null],
  ["hf.co/org/name:i2_s", "org/name", null, "i2_s"],
  ["https://huggingface.co/org/name/tree/v2", "org/name", "v2", null],
  ["https://hf.co/org/name/tree/refs%2Fpr%2F1", "org/name", "refs/pr/1", null],
  ["https://huggingface.co/org/name/blob/main/a.gguf?x=1", "org/name", "main", "a.gguf"],
  ["bitnet-2b-4t", "microsoft/bitnet-b1.58-2B-4T", null, null],
  ["BitNet-2B-4T-GGUF", "microsoft/bitnet-b1.58-2B-4T-gguf", null, "i2_s"],
];

for (const [text, repo, revision, file] of NAMES) {
  Deno.test(`parseHubName: ${text}`, () => {
    assert.deepEqual(parseHubName(text), { repo, revision, file });
    assert.deepEqual(parseHubName(hubNameText({ repo, revision, file })), { repo, revision, file });
  });
}

Deno.test("parseHubName: paths are no names", () => {
  const paths = [
    "./org/name",
    "/org/name",
    "../org/name",
    "a/b/c",
    "name",
    "model.gguf",
    "~/models/x",
    "C:\\models\\x",
    "org\\name",
    "org/../name",
    "org/name@../../x",
    "org/name:../x.gguf",
    "org--x/name",
    "",
  ];
  for (const text of paths) assert.equal(parseHubName(text), null, text);
});

Deno.test("parseHubName: what says that it is of the hub must be right", () => {
  for (
    const text of [
      "hf:",
      "hf:a/b/c",
      "hf:../x",
      "hf:a/b@",
      "https://huggingface.co/",
      "hf.co/a/b/tree/%zz",
    ]
  ) {
    assert.throws(() => parseHubName(text), /give hf:ORG\/NAME/, text);
  }
  assert.throws(() => requireHubName("./here"), /Cannot find "\.\/here" on the hub/);
});

Deno.test("isRepoId: two names at most, none that a path could be made of", () => {
  for (const repo of ["a", "a/b", "a.b/c-d_e", "1bitLLM/bitnet_b1_58-3B"]) {
    assert.ok(isRepoId(repo), repo);
  }
  for (const repo of ["", "/", "a/", "/a", "a/b/c", "..", "a/..", "a--b/c", ".a/b", "a/b.git"]) {
    assert.ok(!isRepoId(repo), repo);
  }
});

Deno.test("isSafePath: nothing leaves the folder, names no device, or fools a terminal", () => {
  for (const path of ["a", "a/b.json", "1_Pooling/config.json", ".gitattributes", "ä b (1).txt"]) {
    assert.ok(isSafePath(path), path);
  }
  const hostile = ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a\\..\\b", "C:a", "a\0b"]
    .concat(["a\nb", "a\x1b[2J", "con", "NUL.txt", "a.", "a ", "x\u202egnp.exe", "a".repeat(256)]);
  for (const path of hostile) assert.ok(!isSafePath(path), JSON.stringify(path));
});

Deno.test("isSafePath: a safe path never resolves to above its folder", () => {
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom(..."./\\:ab~ ") }), (text) => {
    if (!isSafePath(text)) return;
    const url = new URL(text.split("/").map(encodeURIComponent).join("/"), "file:///models/deep/");
    assert.ok(url.pathname.startsWith("/models/deep/"));
    assert.ok(!/^([/~\\]|\w:)/.test(text) || text.startsWith("~"));
  }));
});

Deno.test("catalogue: names are short, unique and no repository's", () => {
  const names = CATALOGUE.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const { name, repo, revision } of CATALOGUE) {
    assert.match(name, /^[a-z0-9][a-z0-9.-]{2,30}$/);
    assert.ok(isRepoId(repo) && repo.includes("/"), repo);
    assert.ok(revision === null || /^[0-9a-f]{40}$/.test(revision), name);
  }
});
