import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Services } from "../services.ts";
import { jsonOf, NOT_READY, OPERATIONS_TAG } from "./schemas.ts";

const Slot = z.object({
  id: z.number(),
  label: z.string().nullable(),
  state: z.enum(["prefill", "decode"]),
  promptTokens: z.number(),
  cachedTokens: z.number(),
  computedTokens: z.number(),
  completionTokens: z.number(),
}).openapi("Slot");

const Slots = z.object({
  maxSequences: z.number(),
  waiting: z.number().openapi({ description: "Sequences that wait for a slot" }),
  kvBlocks: z.object({
    total: z.number(),
    used: z.number(),
    cached: z.number(),
    free: z.number(),
    positions: z.number().openapi({ description: "Tokens of one block" }),
  }),
  slots: z.array(Slot),
}).openapi("Slots");

const ROUTE = createRoute({
  method: "get",
  path: "/slots",
  tags: [OPERATIONS_TAG],
  summary: "The sequences that run now, and the memory that they take",
  responses: { 200: jsonOf(Slots, "What the engine does"), 503: NOT_READY },
});

export function addSlots(app: OpenAPIHono, { host }: Services): void {
  app.openapi(ROUTE, (c) => {
    const { maxSequences, waiting, kvBlocks, slots } = host.model.status();
    return c.json({ maxSequences, waiting, kvBlocks, slots }, 200);
  });
}
