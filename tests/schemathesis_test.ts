/** Schemathesis sends what the served OpenAPI document allows, and what it does not. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { ServerProcess } from "../bench/server/server_process.ts";
import { withFolder } from "./safetensors_file.ts";
import { schemathesis, testWith } from "./tools.ts";

const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_schema_conformance",
];
/** Examples of each operation, besides those of borders that it derives from the document. */
const EXAMPLES = 15;
/** Enough for all of it on a quiet machine; a busy one tries fewer examples. */
const SECONDS = 20;

interface Ended {
  status: number | null;
  output: string;
}

/** In a folder of its own, as it leaves notes. */
function run([program, ...args]: readonly string[], cwd: string): Promise<Ended> {
  const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve({ status, output }));
  });
}

/**
 * The served document, with events of streams as Schemathesis takes them: objects whose `data` is a text.
 * What is served has the JSON in that text, as OpenAI's own document does.
 */
async function documentOf(url: string): Promise<string> {
  const document = await (await fetch(`${url}/openapi.json`)).json();
  let streams = 0;
  for (const { post } of Object.values<{ post?: Operation }>(document.paths)) {
    const stream = post?.responses[200].content["text/event-stream"];
    if (stream === undefined) continue;
    stream.schema = eventOf(stream.schema);
    streams++;
  }
  assert.ok(streams >= 4, `only ${streams} operations have streams`);
  return JSON.stringify(document);
}

interface Operation {
  responses: Record<number, { content: Record<string, { schema: unknown }> }>;
}

function eventOf(schema: unknown) {
  const json = { type: "string", contentMediaType: "application/json", contentSchema: schema };
  const data = { anyOf: [{ const: "[DONE]" }, json] };
  return { type: "object", properties: { data }, required: ["data"] };
}

testWith(
  schemathesis(),
  "schemathesis: every answer is as the OpenAPI document says",
  async (st) => {
    await using server = await ServerProcess.start({ args: ["--threads", "1"] });
    await withFolder({ "openapi.json": await documentOf(server.url) }, async (folder) => {
      const { status, output } = await run([
        ...[...st, "run", "openapi.json", "--url", server.url],
        ...["--checks", CHECKS.join(","), "--max-examples", String(EXAMPLES)],
        ...["--phases", "examples,coverage,fuzzing", "--max-time", String(SECONDS)],
        ...["--generation-deterministic", "--no-color", "--suppress-health-check", "all"],
        // Python's parser can fail in two threads at once, which then counts as a failure.
        ...["--request-timeout", "20", "--workers", "1"],
      ], folder);
      assert.equal(status, 0, output);
      const [, tested] = /Tested: +(\d+)/.exec(output) ?? [];
      assert.ok(Number(tested) >= 24, `only ${tested} operations were tested: ${output}`);
    });
    assert.ok(server.isRunning, server.output);
  },
);
