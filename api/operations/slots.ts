import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { addGet } from "../route.ts";
import type { Services } from "../services.ts";
import { OPERATIONS } from "./dialect.ts";

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

export function addSlots(app: OpenAPIHono, { host }: Services): void {
  const summary = "The sequences that run now, and the memory that they take";
  addGet(app, OPERATIONS, { path: "/slots", summary, answer: Slots }, (c) => {
    const { maxSequences, waiting, kvBlocks, slots } = host.model.status();
    return c.json<z.output<typeof Slots>>({ maxSequences, waiting, kvBlocks, slots });
  });
}
