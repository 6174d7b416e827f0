import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { SUPPORTED_KEYWORDS } from "../runtime/grammar/schema_keywords.ts";
import { ROOT } from "./paths.ts";

Deno.test("README names the keywords of JSON schemas that are kept", () => {
  const text = fs.readFileSync(path.join(ROOT, "README.md"), "utf8");
  const [, list] = /Keywords of JSON schemas that are kept:([^.]*)\./s.exec(text) ?? [];
  const named = [...(list ?? "").matchAll(/`([^`]+)`/g)].map(([, keyword]) => keyword);
  assert.deepEqual(named, [...SUPPORTED_KEYWORDS]);
});
