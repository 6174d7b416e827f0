import assert from "node:assert/strict";
import { type Companions, textCompanions } from "./companions.ts";
import { CheckpointError, UnsupportedModelError } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { readPooling } from "./pooling.ts";

const NAMES = { modules: "modules.json", pooling: "1_Pooling/config.json" } as const;

/** A folder's files of sentence-transformers. */
function companions(files: { modules?: Json; pooling?: Json }): Companions {
  const found = new Map<string, Json>();
  for (const [name, json] of Object.entries(files)) {
    found.set(NAMES[name as keyof typeof NAMES], json);
  }
  const text = (name: string) => found.has(name) ? JSON.stringify(found.get(name)) : null;
  return textCompanions("folder", (name) => Promise.resolve(text(name)));
}

function modules(...kinds: string[]): JsonObject[] {
  return kinds.map((kind, idx) => ({
    idx,
    name: String(idx),
    path: kind === "Transformer" ? "" : `${idx}_${kind}`,
    type: `sentence_transformers.models.${kind}`,
  }));
}

const WHOLE = modules("Transformer", "Pooling", "Normalize");

Deno.test("pooling: none where there are no files", async () => {
  assert.equal(await readPooling(companions({})), null);
});

Deno.test("pooling: flags of older files, names of newer ones", async () => {
  for (
    const [pooling, expected] of [
      [{ pooling_mode_mean_tokens: true, pooling_mode_cls_token: false }, "mean"],
      [{ pooling_mode_mean_tokens: false, pooling_mode_cls_token: true }, "cls"],
      [{ pooling_mode_mean_tokens: false, pooling_mode_lasttoken: true }, "last"],
      [{ word_embedding_dimension: 64 }, "mean"],
      [{ pooling_mode: "lasttoken", embedding_dimension: 64 }, "last"],
      [{ pooling_mode_mean_tokens: false, pooling_mode_max_tokens: true }, "max"],
      [{ pooling_mode: "weightedmean" }, "weightedmean"],
      [{ pooling_mode: "mean_sqrt_len_tokens" }, "mean_sqrt_len_tokens"],
      [{ pooling_mode: ["cls"] }, "cls"],
    ] as const
  ) {
    const found = await readPooling(companions({ modules: WHOLE, pooling: pooling as Json }));
    assert.deepEqual(found, { pooling: expected, normalize: true });
  }
});

Deno.test("pooling: vectors have length 1 if modules.json says so, or is not there", async () => {
  const pooling = { pooling_mode: "cls" };
  const without = { modules: modules("Transformer", "Pooling"), pooling };
  assert.deepEqual(await readPooling(companions(without)), { pooling: "cls", normalize: false });
  assert.deepEqual(await readPooling(companions({ pooling })), { pooling: "cls", normalize: true });
});

for (
  const [what, files, kind, message] of [
    [
      "another pooling",
      { pooling: { pooling_mode: "median" } },
      UnsupportedModelError,
      /must ask for one of mean, cls, lasttoken, max, weightedmean, .*: current value is median/,
    ],
    [
      "two at once",
      { pooling: { pooling_mode_cls_token: true } },
      UnsupportedModelError,
      /current value is cls, mean/,
    ],
    [
      "none",
      { pooling: { pooling_mode_mean_tokens: false } },
      UnsupportedModelError,
      /current value is none/,
    ],
    [
      "a name of Object's",
      { pooling: { pooling_mode: "constructor" } },
      UnsupportedModelError,
      /value is constructor/,
    ],
    ["a flag of text", { pooling: { pooling_mode_cls_token: "yes" } }, CheckpointError, /must be/],
    ["a list", { pooling: [] }, CheckpointError, /must be a JSON object/],
    [
      "dense layers",
      { modules: modules("Transformer", "Pooling", "Dense", "Normalize"), pooling: {} },
      UnsupportedModelError,
      /current value is Transformer, Pooling, Dense, Normalize/,
    ],
    ["no modules", { modules: [], pooling: {} }, UnsupportedModelError, /modules.json must be/],
    ["modules of text", { modules: "a", pooling: {} }, CheckpointError, /must be a list/],
    ["a module of text", { modules: ["a"], pooling: {} }, CheckpointError, /must be a list/],
    [
      "another folder",
      {
        modules: modules("Transformer", "Pooling").map((all) => ({ ...all, path: "Elsewhere" })),
        pooling: {},
      },
      UnsupportedModelError,
      /must have its pooling in 1_Pooling: current value is "Elsewhere"/,
    ],
    ["no file", { modules: WHOLE }, CheckpointError, /1_Pooling\/config.json, which is missing/],
  ] as readonly (readonly [
    string,
    { modules?: Json; pooling?: Json },
    new (m: string) => Error,
    RegExp,
  ])[]
) {
  Deno.test(`pooling: files with ${what} are refused`, async () => {
    await assert.rejects(readPooling(companions(files)), (error: Error) => {
      assert.ok(error instanceof kind, error.stack);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}
