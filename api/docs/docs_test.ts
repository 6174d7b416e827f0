import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { loadModel } from "../../runtime/mod.ts";
import { sceneOf } from "../middleware/test_helpers.ts";
import { testApp } from "../test_helpers.ts";
import { bodyOf, curlOf, exampleOf } from "./curl.ts";
import { type ApiDocument, documentOf, operationsOf, type Schema } from "./document.ts";
import { STYLE } from "./page.ts";
import { schemaHtml } from "./schema_html.ts";

Deno.test("docs: every route is in the document, but pages and their files", () => {
  const { app } = sceneOf();
  const listed = operationsOf(documentOf(app));
  const known = listed.map(({ method, path }) => `${method} ${path}`.replaceAll(/\{\w+\}/g, "*"));
  const pages = ["/", "/docs", "/openapi.json", "/echo", "/fail"];
  const routes = app.routes.filter(({ method, path }) =>
    method !== "ALL" && !pages.includes(path) && !path.startsWith("/web/")
  );
  assert.ok(routes.length > 20);
  for (const { method, path } of routes) {
    const pattern = `${method.toLowerCase()} ${path.replaceAll(/:\w+(\{[^}]*\})?/g, "*")}`;
    assert.ok(known.includes(pattern), pattern);
  }
});

Deno.test("docs: the document says how to authenticate, and tags all operations", async () => {
  const { ask } = sceneOf();
  const response = await ask("/openapi.json");
  const document = await response.json();
  assert.equal(document.openapi, "3.1.0");
  assert.deepEqual(Object.keys(document.components.securitySchemes), ["bearer", "apiKey"]);
  assert.deepEqual(document.paths["/health"].get.security, []);
  const tags = document.tags.map(({ name }: { name: string }) => name);
  for (const { path, operation } of operationsOf(document as ApiDocument)) {
    assert.ok(tags.includes(operation.tags?.[0]), path);
    assert.ok(operation.summary, path);
    assert.ok("200" in operation.responses, path);
  }
});

Deno.test("docs: the page has all operations, no scripts, and asks for nothing", async () => {
  const { ask, app } = sceneOf();
  const response = await ask("/docs");
  const html = await response.text();
  for (const { path } of operationsOf(documentOf(app))) assert.ok(html.includes(path), path);
  assert.doesNotMatch(html, /<script|<link|<img|<iframe|\bon\w+=|javascript:|style="/);
  assert.doesNotMatch(html, /(?:src|href)="(?!#|openapi\.json")/);
  const policy = response.headers.get("content-security-policy")!;
  const [, style] = /<style>([^]*?)<\/style>/.exec(html)!;
  assert.equal(style, STYLE);
  assert.ok(policy.includes(`'sha256-${createHash("sha256").update(style).digest("base64")}'`));
  assert.match(policy, /^default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|script-src/);
});

Deno.test("docs: elements are closed in the order in which they were opened", async () => {
  const html = await (await sceneOf().ask("/docs")).text();
  const open: string[] = [];
  const isVoid = (name: string) => ["meta", "!doctype"].includes(name.toLowerCase());
  for (const [, slash, name] of html.matchAll(/<(\/?)([!a-z][a-z0-9]*)[^>]*>/gi)) {
    if (isVoid(name)) continue;
    if (slash === "") open.push(name);
    else assert.equal(open.pop(), name);
  }
  assert.deepEqual(open, []);
});

Deno.test("docs: commands have the address that the page was asked for by", async () => {
  const { app } = sceneOf({ allowedHosts: ["*"] });
  const html = await (await app.request("http://llm.example:8123/docs")).text();
  assert.ok(html.includes("curl http://llm.example:8123/health"));
  assert.ok(!html.includes("127.0.0.1:8080"));
});

Deno.test("docs: every example is answered", async () => {
  await using model = await loadModel(undefined, { threads: 1 });
  const { app, post, get } = await testApp(model);
  const document = documentOf(app);
  for (const { path, method, operation } of operationsOf(document)) {
    const body = bodyOf(path, operation, document);
    const response = body === null
      ? await get(path.replace("{model}", "story"))
      : await post(path, body);
    const text = await response.text();
    assert.equal(response.status, 200, `${method} ${path}: ${text}`);
  }
});

const DOCUMENT: ApiDocument = {
  info: { title: "t", version: "1" },
  paths: {},
  components: {
    schemas: {
      Tree: {
        type: "object",
        description: "A `tree` <b>",
        properties: {
          label: { type: ["string", "null"], default: "x" },
          weight: { type: "number", minimum: 0, maximum: 2 },
          children: { type: "array", items: { $ref: "#/components/schemas/Tree" } },
        },
        required: ["label"],
      },
    },
  },
};
const TREE: Schema = { $ref: "#/components/schemas/Tree" };

Deno.test("docs: schemas are shown with types, ranges and defaults, recursive ones too", () => {
  const html = schemaHtml(TREE, DOCUMENT);
  assert.match(html, /A <code>tree<\/code> &lt;b&gt;/);
  assert.match(
    html,
    /<code>label<\/code> <strong>required<\/strong>[^<]*<span[^>]*>string \| null, default &quot;x&quot;</,
  );
  assert.match(html, /number, 0 to 2/);
  assert.match(html, /array of object/);
  assert.throws(() => schemaHtml({ $ref: "#/components/schemas/Nothing" }, DOCUMENT), RangeError);
});

Deno.test("docs: examples are the smallest that a schema takes, quoted for a shell", () => {
  assert.deepEqual(exampleOf(TREE, DOCUMENT), { label: "x" });
  assert.deepEqual(exampleOf({ anyOf: [{ type: "array", items: TREE }, {}] }, DOCUMENT), [{
    label: "x",
  }]);
  const schema = { type: "object", required: ["a"], properties: { a: { example: "it's" } } };
  const operation = {
    requestBody: { content: { "application/json": { schema } } },
    responses: {},
    security: [],
  };
  assert.equal(
    curlOf({ path: "/x", method: "post", operation }, DOCUMENT),
    `curl http://127.0.0.1:8080/x \\\n  -H "Content-Type: application/json" \\\n  -d '{"a":"it'\\''s"}'`,
  );
});
