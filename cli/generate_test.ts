import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BOS, EOS } from "./fake_model.ts";
import { run } from "./test_helpers.ts";

Deno.test("generate prints the completion alone and ends with a line of statistics", async () => {
  const { code, stdout, stderr, models } = await run(["generate", "w"]);
  assert.equal(stdout, "xyz\n");
  assert.equal(
    stderr,
    "prompt 2 tokens 100 tokens/s · 4 tokens 40.0 tokens/s · first token 0.02 s · portable-multiply, 2 threads\n",
  );
  assert.equal(code, 0);
  assert.ok(models[0].isDisposed);
});

Deno.test("generate's statistics say which guesses were right and which head was used", async () => {
  const scene = { draftTokens: 9, acceptedTokens: 7, head: "two-stage" } as const;
  const { stderr } = await run(["generate", "w"], scene);
  assert.match(
    stderr,
    / · first token 0.02 s · 7 of 9 guesses right · portable-multiply, 2 threads · two-stage head\n$/,
  );
});

Deno.test("generate --json is the contract's object, and which kernels ran", async () => {
  const { stdout } = await run(["generate", "w", "--json"]);
  const { timings, ...rest } = JSON.parse(stdout);
  assert.deepEqual(rest, {
    model: "fake",
    promptTokens: 2,
    cachedTokens: 0,
    completionTokens: 4,
    tokenIds: [120, 121, 122, EOS],
    text: "xyz",
    finishReason: "stop",
    stopString: null,
    logprobs: null,
    head: "full",
    kernels: { isa: "portable", scheme: "multiply", reason: "default: not tuned" },
  });
  assert.deepEqual(Object.keys(timings), [
    "compileMs",
    "loadMs",
    "queueMs",
    "prefillMs",
    "decodeMs",
    "timeToFirstTokenMs",
    "prefillTokensPerSecond",
    "decodeTokensPerSecond",
    "draftTokens",
    "acceptedTokens",
  ]);
});

Deno.test("generate --raw adds no newline, --quiet no statistics", async () => {
  const { stdout, stderr } = await run(["generate", "w", "--raw", "--quiet"]);
  assert.equal(stdout, "xyz");
  assert.equal(stderr, "");
});

Deno.test("generate on a terminal shows the prompt first, without control characters", async () => {
  const scene = { isTerminal: true, hasColour: true };
  assert.equal(
    (await run(["generate", "\x1b[31mw"], scene)).stdout,
    "\x1b[2m\ufffd[31mw\x1b[0mxyz\n",
  );
  assert.equal((await run(["generate", "w"], { isTerminal: true })).stdout, "wxyz\n");
  const ids = ["generate", "--prompt-ids", "118,119"];
  assert.equal((await run(ids, { isTerminal: true })).stdout, "vwxyz\n");
});

Deno.test("generate takes the prompt from standard input, a file or ids", async () => {
  const piped = { stdin: ["u", "v", "w\n"] };
  const promptTokens = async (args: string[], scene = {}) =>
    JSON.parse((await run(["generate", "--json", ...args], scene)).stdout).promptTokens;
  assert.equal(await promptTokens([], piped), 4);
  assert.equal(await promptTokens(["-"], piped), 4);
  assert.equal(await promptTokens(["--no-bos"], piped), 3);
  assert.equal(await promptTokens(["x"], piped), 2, "an argument comes before standard input");
  assert.equal(await promptTokens(["--prompt-ids", `[${BOS}, 119]`]), 2);
  const folder = mkdtempSync(join(tmpdir(), "trilith-test-"));
  try {
    const file = join(folder, "prompt.txt");
    writeFileSync(file, "a\nw\r\n");
    assert.equal(await promptTokens(["--prompt-file", file]), 4);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

Deno.test("generate without a prompt starts the story model's story and says so", async () => {
  for (const scene of [{ isTerminal: true }, { stdin: [] }]) {
    const { stderr, code } = await run(["generate", "--max-tokens", "1"], scene);
    assert.match(stderr, /^No prompt was given: .*"Once upon a time"\n/);
    assert.equal(code, 0);
  }
});

Deno.test("generate passes flags to the model", async () => {
  const args = "generate w --temperature 0.5 --top-k 3 --top-p 0.9 --min-p 0.1 --typical-p 0.8" +
    " --repeat-penalty 1.1 --presence-penalty -0.5 --frequency-penalty .25 --penalty-last-n -1" +
    " --seed 7 --max-tokens 9 --stop y --stop q --ignore-eos --logit-bias 5=-2 --logit-bias 6=-inf" +
    " --speculate 4 --head full --threads 3 --ctx 99 --kernels avx2 --kv-type f16 --quantize absmean --model some/path";
  const { models, loads } = await run(args.split(" "));
  const { signal: _, ...options } = models[0].lastOptions;
  assert.deepEqual(options, {
    temperature: 0.5,
    topK: 3,
    topP: 0.9,
    minP: 0.1,
    typicalP: 0.8,
    repeatPenalty: 1.1,
    presencePenalty: -0.5,
    frequencyPenalty: 0.25,
    penaltyLastN: -1,
    logitBias: new Map([[5, -2], [6, -Infinity]]),
    seed: 7,
    maxTokens: 9,
    stop: ["y", "q"],
    ignoreEos: true,
    addSpecialTokens: true,
    speculate: 4,
  });
  assert.equal(loads[0].path, "some/path");
  const { threads, contextSize, kernels, kvType, quantize, head } = loads[0].options;
  assert.deepEqual([threads, contextSize, kernels, kvType, quantize, head], [
    3,
    99,
    "avx2",
    "f16",
    "absmean",
    "full",
  ]);
});

const ADVICE = { doSample: true, temperature: 0.6, topP: 0.9, repeatPenalty: 1.2, maxNewTokens: 5 };

for (
  const { name, args, defaults, expected } of [
    { name: "no advice is greedy", args: [], defaults: {}, expected: { temperature: 0 } },
    {
      name: "a seed alone stays greedy",
      args: ["--seed", "3"],
      defaults: {},
      expected: { temperature: 0, seed: 3 },
    },
    { name: "a filter alone samples", args: ["--top-k", "5"], defaults: {}, expected: { topK: 5 } },
    {
      name: "advice is taken",
      args: [],
      defaults: ADVICE,
      expected: { temperature: 0.6, topP: 0.9, repeatPenalty: 1.2 },
    },
    {
      name: "flags come before advice",
      args: ["--temperature", "0"],
      defaults: ADVICE,
      expected: { temperature: 0, topP: 0.9, repeatPenalty: 1.2 },
    },
    {
      name: "advice not to sample is greedy",
      args: [],
      defaults: { ...ADVICE, doSample: false },
      expected: { temperature: 0, repeatPenalty: 1.2 },
    },
  ]
) {
  Deno.test(`generate's sampling: ${name}`, async () => {
    const { models } = await run(["generate", "w", ...args], { defaults });
    const {
      signal: _,
      maxTokens,
      stop: _1,
      ignoreEos: _2,
      addSpecialTokens: _3,
      speculate: _4,
      ...sampling
    } = models[0].lastOptions;
    assert.deepEqual(sampling, expected);
    assert.equal(maxTokens, "maxNewTokens" in defaults ? 5 : undefined);
  });
}

Deno.test("generate: Ctrl-C keeps what there is, with exit code 130", async () => {
  const scene = { interruptAfter: "bcd", tokenMs: 2 };
  const { code, stdout, stderr, models } = await run(["generate", "a"], scene);
  assert.equal(code, 130);
  assert.match(stdout, /^bcde?f?\n$/);
  assert.match(stderr, /^prompt 2 tokens .* · stopped\n$/);
  assert.ok(models[0].isDisposed);
});

Deno.test("generate: Ctrl-C while the model loads is exit code 130", async () => {
  const engine = {
    loadModel: (_path: unknown, { signal }: { signal?: AbortSignal }) =>
      new Promise<never>((_, reject) => {
        signal!.addEventListener("abort", () => reject(signal!.reason));
      }),
  };
  const { code, stderr, stdout } = await run(["generate", "a"], { engine, interruptAfterMs: 5 });
  assert.equal(code, 130);
  assert.equal(stderr, "Stopped\n");
  assert.equal(stdout, "");
});
