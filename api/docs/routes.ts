import type { OpenAPIHono } from "@hono/zod-openapi";
import { createHash } from "node:crypto";
import { BASE_URL } from "./curl.ts";
import { type ApiDocument, documentOf } from "./document.ts";
import { escaped } from "./html.ts";
import { docsPage, STYLE } from "./page.ts";

/** No scripts at all, and the one style sheet that the page has in it. */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

interface Docs {
  document: ApiDocument;
  page: string;
}

const made = new WeakMap<OpenAPIHono, Docs>();

/** The document and its page: made once, which takes some 20 ms. */
export function docsOf(app: OpenAPIHono): Docs {
  const known = made.get(app);
  if (known !== undefined) return known;
  const document = documentOf(app);
  const docs = { document, page: docsPage(document) };
  made.set(app, docs);
  return docs;
}

/** Adds `/openapi.json` and `/docs`. */
export function addDocs(app: OpenAPIHono): void {
  app.get("/openapi.json", (c) => c.json(docsOf(app).document));
  app.get("/docs", (c) => {
    c.header("content-security-policy", POLICY);
    // What is copied from the page should work.
    const origin = escaped(new URL(c.req.url).origin);
    return c.html(docsOf(app).page.replaceAll(BASE_URL, origin));
  });
}
