import assert from "node:assert/strict";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Services } from "../services.ts";
import { WEB_FILES } from "./files.ts";
import { addWebRoutes, WEB_POLICY } from "./routes.ts";

function app(): OpenAPIHono {
  const made = new OpenAPIHono();
  // The page needs nothing of the model: it asks the other routes.
  addWebRoutes(made, {} as Services);
  return made;
}

Deno.test("web: the page has its type, a strict policy and a tag", async () => {
  const response = await app().request("/");
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/html; charset=utf-8");
  assert.equal(response.headers.get("content-security-policy"), WEB_POLICY);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.match(await response.text(), /^<!DOCTYPE html>/);
  assert.doesNotMatch(WEB_POLICY, /unsafe|\*|https?:/);
});

Deno.test("web: a file that the browser has is not sent again", async () => {
  const first = await app().request("/web/app.js");
  const etag = first.headers.get("etag")!;
  await first.body?.cancel();
  for (const tag of [etag, `W/${etag}`, `"other", ${etag}`]) {
    const again = await app().request("/web/app.js", { headers: { "if-none-match": tag } });
    assert.equal(again.status, 304, tag);
    assert.equal(await again.text(), "");
    assert.equal(again.headers.get("etag"), etag);
  }
  const changed = await app().request("/web/app.js", { headers: { "if-none-match": '"old"' } });
  assert.equal(changed.status, 200);
  await changed.body?.cancel();
});

Deno.test("web: all that the files name is served", async () => {
  const served = new Set(WEB_FILES.map(({ path }) => path));
  let names = 0;
  for (const { path, text } of WEB_FILES) {
    if (path.startsWith("web/vendor/")) continue;
    const base = new URL(path, "http://page/");
    const found = text.matchAll(/(?:from|import\()\s*"([^"]+)"|(?:src|href)="(web\/[^"]+)"/g);
    for (const [, imported, linked] of found) {
      const target = new URL(imported ?? linked, base).pathname.slice(1);
      assert.ok(served.has(target), `${path} names ${target}`);
      names++;
    }
  }
  assert.ok(names > 30, `only ${names} names were seen`);
  const missing = await app().request("/web/files.ts");
  assert.equal(missing.status, 404);
  await missing.body?.cancel();
});

Deno.test("web: no script, style or handler is inline, and nothing is elsewhere", () => {
  const { text } = WEB_FILES.find(({ path }) => path === "")!;
  assert.doesNotMatch(text, /<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=|javascript:/i);
  for (const { path, text } of WEB_FILES) {
    if (path.startsWith("web/vendor/")) continue;
    const outside = text.replaceAll("http://www.w3.org/2000/svg", "").match(
      /https?:\/\/\w[^"'\s]*/g,
    );
    assert.equal(outside, null, path);
    assert.doesNotMatch(text, /\binnerHTML\b|\bouterHTML\b|insertAdjacentHTML|\beval\b/, path);
  }
});
