import assert from "node:assert/strict";
import fc from "fast-check";
import { ToolCallParser } from "./tool_call_parser.ts";
import type { TextEvent } from "./types.ts";

interface Parsed {
  text: string;
  calls: [name: string, args: string][];
}

function parse(pieces: readonly string[]): Parsed {
  const parser = new ToolCallParser();
  const events: TextEvent[] = [...pieces.flatMap((piece) => parser.push(piece)), ...parser.flush()];
  const parsed: Parsed = { text: "", calls: [] };
  for (const event of events) {
    if (event.kind === "text") parsed.text += event.text;
    if (event.kind === "call") parsed.calls[event.call] = [event.name, ""];
    if (event.kind === "arguments") parsed.calls[event.call][1] += event.text;
  }
  assert.equal(parser.calls, parsed.calls.length);
  return parsed;
}

const call = (name: string, args: string) =>
  `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${args}}\n</tool_call>`;

const CASES: [name: string, text: string, expected: Parsed][] = [
  ["text alone", "a < b, <tool", { text: "a < b, <tool", calls: [] }],
  ["text that ends in space", "Well. \n", { text: "Well. \n", calls: [] }],
  ["a call", call("f", '{"a": 1}'), { text: "", calls: [["f", '{"a": 1}']] }],
  ["text before a call", `Let me see.\n${call("f", "{}")}`, {
    text: "Let me see.",
    calls: [["f", "{}"]],
  }],
  ["two calls", `${call("f", "{}")}\n${call("g", '{"b": [{}]}')}\n`, {
    text: "",
    calls: [["f", "{}"], ["g", '{"b": [{}]}']],
  }],
  ["braces and quotes in strings", call('q"', String.raw`{"a": "}\"]</tool_call>"}`), {
    text: "",
    calls: [['q"', String.raw`{"a": "}\"]</tool_call>"}`]],
  }],
  ["a head that is cut", '<tool_call>\n{"name": "f', {
    text: '<tool_call>\n{"name": "f',
    calls: [],
  }],
  ["arguments that are cut", call("f", '{"a": 1}').slice(0, 44), {
    text: "",
    calls: [["f", '{"a":']],
  }],
  ["something else inside", "<tool_call>no</tool_call> yes", {
    text: "<tool_call>no</tool_call> yes",
    calls: [],
  }],
];

for (const [name, text, expected] of CASES) {
  Deno.test(`tool calls: ${name}, however it is cut`, () => {
    assert.deepEqual(parse([text]), expected);
    assert.deepEqual(parse([...text]), expected);
    fc.assert(
      fc.property(
        fc.array(fc.nat(text.length)),
        (cuts) => {
          const ends = [...cuts.sort((a, b) => a - b), text.length];
          const pieces = ends.map((end, i) => text.slice(ends[i - 1] ?? 0, end));
          assert.deepEqual(parse(pieces), expected);
        },
      ),
      { numRuns: 50 },
    );
  });
}

Deno.test("tool calls: arguments come as soon as they are there", () => {
  const parser = new ToolCallParser();
  const [call] = parser.push('<tool_call>\n{"name": "f", "arguments": {');
  assert.equal(call.kind, "call");
  assert.deepEqual(parser.push('"a'), [{ kind: "arguments", call: 0, text: '"a' }]);
  assert.deepEqual(parser.push('": 1'), [{ kind: "arguments", call: 0, text: '": 1' }]);
});
