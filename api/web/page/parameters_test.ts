import assert from "node:assert/strict";
import {
  extraProblem,
  LIMITS,
  numberProblem,
  requestFields,
  SAMPLERS,
  serverDefaults,
  stopStrings,
} from "./parameters.js";

const parameter = (key: string) => [...SAMPLERS, ...LIMITS].find((each) => each.key === key)!;

Deno.test("parameters: what is typed becomes numbers, what is empty is left to the server", () => {
  const fields = requestFields({
    temperature: "0.5",
    top_k: " 40 ",
    seed: "",
    stop: "END\n\\n\\n",
  });
  assert.deepEqual(fields, { temperature: 0.5, top_k: 40, stop: ["END", "\n\n"] });
  assert.deepEqual(requestFields({}), {});
});

Deno.test("parameters: what is wrong is told, and not sent", () => {
  assert.match(numberProblem(parameter("temperature"), "warm"), /must be a number/);
  assert.match(numberProblem(parameter("top_k"), "1.5"), /whole/);
  assert.match(numberProblem(parameter("top_p"), "1.1"), /at most 1/);
  assert.match(numberProblem(parameter("max_tokens"), "0"), /at least 1/);
  assert.equal(numberProblem(parameter("repeat_last_n"), "-1"), "");
  assert.deepEqual(requestFields({ temperature: "warm", top_p: "7", min_p: "0.1" }), {
    min_p: 0.1,
  });
});

Deno.test("parameters: extra fields come last, and must be an object", () => {
  const fields = requestFields({ top_k: "3", extra: '{"top_k": 5, "logit_bias": {"1": -100}}' });
  assert.deepEqual(fields, { top_k: 5, logit_bias: { "1": -100 } });
  for (const text of ["[1]", "null", "{", "3"]) {
    assert.notEqual(extraProblem(text), "", text);
    assert.deepEqual(requestFields({ extra: text }), {}, text);
  }
  assert.equal(extraProblem(" "), "");
});

Deno.test("parameters: a stop string is a line", () => {
  assert.deepEqual(stopStrings("a b\n\n\\tc"), ["a b", "\tc"]);
});

Deno.test("parameters: the authors' values come before the engine's", () => {
  const defaults = serverDefaults({ defaults: { doSample: true, temperature: 0.7, topK: 40 } });
  assert.equal(defaults.temperature, 0.7);
  assert.equal(defaults.top_k, 40);
  assert.equal(defaults.top_p, 1);
  assert.equal(defaults.repeat_last_n, 64);
  const greedy = serverDefaults({ defaults: { doSample: false, temperature: 0.7 } });
  assert.equal(greedy.temperature, 0);
});
