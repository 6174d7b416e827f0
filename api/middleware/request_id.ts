import type { MiddlewareHandler } from "hono";
import { dialectOf } from "../error_shapes.ts";
import { newRecord, setRecord, withRecord } from "../request_record.ts";

/** What a proxy may have called the request; anything else could forge log lines. */
const SANE_ID = /^[\w.:-]{1,128}$/;

/** Names the request, and begins its record. */
export const requestId: MiddlewareHandler = async (c, next) => {
  const given = c.req.header("x-request-id");
  const id = given !== undefined && SANE_ID.test(given) ? given : crypto.randomUUID();
  const record = newRecord(id, c.env?.remoteAddress ?? "unknown");
  setRecord(c, record);
  await withRecord(record, next);
  // Afterwards, as routes may answer with a Response of their own.
  c.header("x-request-id", id);
  // Anthropic's clients tell their users this one.
  if (dialectOf(c.req.path) === "anthropic") c.header("request-id", id);
};
