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

/** Adds `/openapi.json` and `/docs`, made from the routes at the first request for either. */
export function addDocs(app: OpenAPIHono): void {
  let made: ApiDocument | null = null;
  const document = () => made ??= documentOf(app);
  app.get("/openapi.json", (c) => c.json(document()));
  let page: string | null = null;
  app.get("/docs", (c) => {
    c.header("content-security-policy", POLICY);
    page ??= docsPage(document());
    // What is copied from the page should work.
    return c.html(page.replaceAll(BASE_URL, escaped(new URL(c.req.url).origin)));
  });
}
