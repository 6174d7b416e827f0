/** Valid requests of every dialect, damaged: the server never fails, and always says what is wrong. */
import assert from "node:assert/strict";
import process from "node:process";
import fc from "fast-check";
import { ServerProcess } from "../bench/server/server_process.ts";
import { untilIdle } from "./server_state.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

const MODEL = "story";
const MESSAGES = [{ role: "system", content: "Tell." }, { role: "user", content: "A dog." }];
const SCHEMA = {
  type: "object",
  properties: { a: { type: "integer", minimum: 0, maximum: 9 }, b: { enum: ["x", 1] } },
  required: ["a"],
  additionalProperties: false,
};
const FUNCTION = { name: "weather", description: "Of a town", parameters: SCHEMA };
const SAMPLERS = {
  temperature: 1,
  top_p: 0.9,
  top_k: 5,
  min_p: 0.01,
  seed: 3,
  presence_penalty: 0.5,
  frequency_penalty: 0.5,
  repeat_penalty: 1.1,
  stop: ["x"],
};
const CHAT = { model: MODEL, messages: MESSAGES, max_tokens: 3, ...SAMPLERS };

/** A path's valid bodies. */
const REQUESTS: [path: string, body: JsonObject][] = [
  ["/v1/chat/completions", { ...CHAT, n: 2, logprobs: true, top_logprobs: 2 }],
  ["/v1/chat/completions", {
    ...CHAT,
    stream: true,
    stream_options: { include_usage: true },
    logit_bias: { "5": 1 },
  }],
  ["/v1/chat/completions", {
    ...CHAT,
    tools: [{ type: "function", function: FUNCTION }],
    tool_choice: { type: "function", function: { name: "weather" } },
    parallel_tool_calls: false,
  }],
  ["/v1/chat/completions", {
    ...CHAT,
    response_format: {
      type: "json_schema",
      json_schema: { name: "a", strict: true, schema: SCHEMA },
    },
  }],
  ["/v1/completions", {
    model: MODEL,
    prompt: ["A", "B"],
    max_tokens: 3,
    logprobs: 2,
    ...SAMPLERS,
  }],
  ["/v1/responses", {
    model: MODEL,
    input: "A dog.",
    instructions: "Tell.",
    max_output_tokens: 3,
    text: { format: { type: "json_schema", name: "a", schema: SCHEMA, strict: true } },
  }],
  ["/v1/responses", {
    model: MODEL,
    input: [{ role: "user", content: [{ type: "input_text", text: "A dog." }] }],
    max_output_tokens: 3,
    tools: [{ type: "function", ...FUNCTION, strict: true }],
  }],
  ["/v1/embeddings", { model: MODEL, input: ["a", "b"], encoding_format: "base64" }],
  ["/v1/messages", {
    model: MODEL,
    max_tokens: 3,
    system: "Tell.",
    messages: [{ role: "user", content: [{ type: "text", text: "A dog." }] }],
    tools: [{ name: "weather", description: "Of a town", input_schema: SCHEMA }],
    tool_choice: { type: "auto" },
    stop_sequences: ["x"],
    temperature: 1,
  }],
  ["/v1/messages/count_tokens", { model: MODEL, messages: [{ role: "user", content: "A dog." }] }],
  ["/api/generate", { model: MODEL, prompt: "A dog.", stream: false, options: { num_predict: 3 } }],
  ["/api/chat", {
    model: MODEL,
    messages: MESSAGES,
    format: SCHEMA,
    options: { num_predict: 3, temperature: 1, top_k: 5, stop: ["x"] },
  }],
  ["/api/embed", { model: MODEL, input: ["a", "b"] }],
  ["/api/show", { model: MODEL }],
  ["/tokenize", { content: "A dog.", with_pieces: true }],
  ["/detokenize", { tokens: [5, 6, 7] }],
  ["/apply-template", { messages: MESSAGES }],
];

/** What no field is made for. */
const ODD: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom<Json>(
    ...[null, true, false, 0, -1, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 53, 1e-320],
    ...["", "\0", "\ud800", "__proto__", "{{ 1/0 }}", "<|end_of_text|>", "a".repeat(3000)],
    ...[[], {}, [[]], [null], [{}], { type: "text" }, { type: "object" }, { $ref: "#" }],
    ...[{ anyOf: [] }, { type: "string", pattern: "(a+)+$" }, { enum: [] }, { $ref: "http://x/" }],
  ),
  fc.string({ unit: "binary" }),
  fc.double({ noNaN: true }),
  fc.integer(),
  fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<Json>,
);

interface Place {
  holder: JsonObject | Json[];
  key: string | number;
}

/** Every value within a value, by where it is. */
function* placesOf(value: Json): Generator<Place> {
  if (value === null || typeof value !== "object") return;
  const keys = Array.isArray(value) ? value.keys() : Object.keys(value);
  for (const key of keys) {
    yield { holder: value, key };
    yield* placesOf((value as Record<string | number, Json>)[key]);
  }
}

type Damage = "replace" | "remove" | "add" | "nest" | "repeat";
const DAMAGES = fc.constantFrom<Damage>(
  "replace",
  "replace",
  "replace",
  "remove",
  "add",
  "nest",
  "repeat",
);

function damage(body: Json, how: Damage, at: number, odd: Json): void {
  const places = [...placesOf(body)];
  if (places.length === 0) return;
  const { holder, key } = places[at % places.length];
  const values = holder as Record<string | number, Json>;
  if (how === "replace") values[key] = odd;
  else if (how === "nest") values[key] = nested(values[key], at % 200);
  else if (how === "repeat") values[key] = Array.from({ length: at % 50 }, () => values[key]);
  else if (how === "add") Object.assign(holder, { [String(at)]: odd });
  else if (Array.isArray(holder)) holder.splice(key as number, 1);
  else delete holder[key];
}

function nested(value: Json, depth: number): Json {
  let outer = value;
  for (let i = 0; i < depth; i++) outer = i % 2 === 0 ? [outer] : { a: outer };
  return outer;
}

const DAMAGED = fc.record({
  request: fc.constantFrom(...REQUESTS),
  damages: fc.array(fc.tuple(DAMAGES, fc.nat(10_000), ODD), { minLength: 1, maxLength: 3 }),
}).map(({ request: [path, valid], damages }) => {
  const body: Json = structuredClone(valid);
  for (const [how, at, odd] of damages) damage(body, how, at, structuredClone(odd));
  return { path, text: JSON.stringify(body) };
});

/** Bodies that are no JSON at all, or cut off. */
const BROKEN = fc.record({
  request: fc.constantFrom(...REQUESTS),
  end: fc.double({ min: 0, max: 1, noNaN: true }),
  rest: fc.string({ maxLength: 5 }),
}).map(({ request: [path, valid], end, rest }) => {
  const text = JSON.stringify(valid);
  return { path, text: text.slice(0, Math.floor(end * text.length)) + rest };
});

/** An error in the shape that the path's clients read. */
function checkError(path: string, text: string): void {
  const body = JSON.parse(text);
  if (path.startsWith("/api/")) {
    assert.deepEqual(Object.keys(body), ["error"]);
    assert.equal(typeof body.error, "string");
    return;
  }
  if (path.startsWith("/v1/messages")) assert.equal(body.type, "error");
  const { type, message } = body.error;
  assert.ok(typeof type === "string" && type.length > 0);
  assert.ok(typeof message === "string" && message.length > 0);
  if (!path.startsWith("/v1/messages")) assert.ok("param" in body.error && "code" in body.error);
}

async function send(url: string, { path, text }: { path: string; text: string }) {
  const response = await fetch(`${url}${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: text,
    // Nothing of this takes long: it only ends what hangs, and says what did.
    signal: AbortSignal.timeout(30_000),
  });
  const answer = await response.text();
  assert.ok(response.status < 500 || response.status === 503, `${response.status}: ${answer}`);
  if (response.ok) return response.status;
  assert.match(response.headers.get("content-type")!, /^application\/json/);
  checkError(path, answer);
  return response.status;
}

/** TRILITH_FUZZ_RUNS: how many bodies are tried. */
const RUNS = Number(process.env.TRILITH_FUZZ_RUNS) || 800;

Deno.test("fuzz: damaged requests never make the server fail", async (t) => {
  await using server = await ServerProcess.start({ args: ["--threads", "1"] });
  const { url } = server;
  await t.step("undamaged they succeed", async () => {
    for (const [path, body] of REQUESTS) {
      const response = await fetch(`${url}${path}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      assert.equal(response.status, 200, `${path}: ${await response.text()}`);
    }
  });
  await t.step("damaged", async () => {
    const statuses = new Map<number, number>();
    await fc.assert(
      fc.asyncProperty(DAMAGED, async (request) => {
        const status = await send(url, request);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }),
      { numRuns: RUNS },
    );
    assert.ok(statuses.get(200)! > 0 && statuses.get(400)! > 0, "some pass and some do not");
  });
  await t.step("broken", async () => {
    await fc.assert(
      fc.asyncProperty(BROKEN, async (request) => {
        assert.notEqual(await send(url, request), 500);
      }),
      { numRuns: Math.ceil(RUNS / 8) },
    );
  });
  await untilIdle(url);
  assert.ok(server.isRunning, server.output);
});
