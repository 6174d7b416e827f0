import assert from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import { invalidBody } from "./invalid_body.ts";

const Part = z.object({ type: z.literal("text", "only text"), text: z.string() });
const Schema = z.object({
  messages: z.array(z.object({ content: z.union([z.string(), z.array(Part)]) })),
  seed: z.int().max(9).optional(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  size: z.union([z.int(), z.null()], "give a size").optional(),
});

const CASES: [name: string, body: unknown, param: string | null, says: RegExp][] = [
  ["the body itself", 5, null, /the body is not.*expected object/],
  ["a missing field", {}, "messages", /expected array/],
  ["a field", { messages: [], seed: 10 }, "seed", /<=9/],
  [
    "the shape that fits the furthest",
    { messages: [{ content: [{ type: "x", text: "" }] }] },
    "messages[0].content[0].type",
    /only text$/,
  ],
  [
    "all shapes, where none fits",
    { messages: [], stop: 5 },
    "stop",
    /expected string, received number, or Invalid input: expected array/,
  ],
  ["a union's own words", { messages: [], size: "x" }, "size", /: give a size$/],
];

for (const [name, body, param, says] of CASES) {
  Deno.test(`invalid bodies: ${name}`, () => {
    const { error } = Schema.safeParse(body);
    const answer = invalidBody(error!);
    assert.deepEqual([answer.status, answer.param], [400, param]);
    assert.match(answer.message, says);
  });
}
