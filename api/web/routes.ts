import type { Context } from "hono";
import type { AddRoutes } from "../app.ts";
import { WEB_FILES, type WebFile } from "./files.ts";

/**
 * Scripts and styles are this server's files only, nothing is fetched from elsewhere, and what becomes
 * markup goes through DOMPurify or not at all. A model's text may be hostile; this is the second wall.
 */
export const WEB_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types dompurify",
].join("; ");

const HEADERS = {
  "content-security-policy": WEB_POLICY,
  // Asked again every time, which costs 304 and no bytes: an update holds at once.
  "cache-control": "no-cache",
  "x-content-type-options": "nosniff",
  "x-dns-prefetch-control": "off",
  "referrer-policy": "no-referrer",
};

/** The chat in the browser. */
export const addWebRoutes: AddRoutes = (app) => {
  for (const file of WEB_FILES) app.get(`/${file.path}`, (c) => answer(c, file));
};

function answer(c: Context, { type, text, etag }: WebFile): Response {
  const headers = { ...HEADERS, etag };
  if (isKnown(c.req.header("if-none-match"), etag)) return c.body(null, 304, headers);
  return c.body(text, 200, { ...headers, "content-type": type });
}

/** A proxy that compresses marks tags as weak, which is as good here. */
function isKnown(header: string | undefined, etag: string): boolean {
  const tags = (header ?? "").split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes(etag) || tags.includes("*");
}
