import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, type Scene } from "./test_helpers.ts";

function typed(lines: (string | null)[], args: string[] = [], scene: Scene = {}) {
  return run(["chat", ...args], { hasTemplate: true, isTerminal: true, typed: lines, ...scene });
}

// The fake model's prompt ends with "]", after which it spells the alphabet.
const ALPHABET = "abcdefghijklmnopqrstuvwxyz";

Deno.test("chat answers each piped line and prints nothing but answers on standard output", async () => {
  const { code, stdout, stderr } = await run(["chat"], { hasTemplate: true, stdin: ["one\ntwo"] });
  assert.equal(stdout, `${ALPHABET}\n${ALPHABET}\n`);
  assert.equal(code, 0);
  assert.equal(stderr.match(/tokens\/s/g)?.length, 4);
});

Deno.test("chat --json prints the conversation at the end", async () => {
  const { stdout } = await run(["chat", "--json", "--system", "Be brief"], {
    hasTemplate: true,
    stdin: ["one\n/undo\ntwo\n"],
  });
  const { model, messages, turns } = JSON.parse(stdout);
  assert.equal(model, "fake");
  assert.deepEqual(messages, [
    { role: "system", content: "Be brief" },
    { role: "user", content: "two" },
    { role: "assistant", content: ALPHABET },
  ]);
  assert.equal(turns.length, 2);
});

Deno.test("chat with a model without a template is refused, and generate suggested", async () => {
  const { code, stderr } = await run(["chat"], { stdin: ["hello\n"] });
  assert.match(stderr, /^error: Cannot chat with fake, as it has no chat template.*generate.*\n$/);
  assert.equal(code, 1);
});

/** The messages after some lines, as /save writes them. */
async function messagesAfter(lines: string[], args: string[] = []) {
  const folder = mkdtempSync(join(tmpdir(), "trilith-test-"));
  try {
    const file = join(folder, "chat.json");
    const { stderr, code } = await typed([...lines, `/save ${file}`], args);
    assert.equal(code, 0);
    assert.match(stderr, /Saved \d+ messages?/);
    return JSON.parse(readFileSync(file, "utf8")).messages as { role: string; content: string }[];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const questionsAfter = async (lines: string[]) =>
  (await messagesAfter(lines)).filter(({ role }) => role === "user").map(({ content }) => content);

Deno.test("chat takes several lines as one message", async () => {
  assert.deepEqual(await questionsAfter(["a\\", "b\\", "c", "d"]), ["a\nb\nc", "d"]);
  assert.deepEqual(await questionsAfter(['"""a', "/b", 'c"""', "d"]), ["a\n/b\nc", "d"]);
  assert.deepEqual(await questionsAfter(["", "  ", "x"]), ["x"]);
});

Deno.test("chat /undo, /regen and /reset", async () => {
  assert.deepEqual(await questionsAfter(["a", "b", "/undo"]), ["a"]);
  assert.deepEqual(await questionsAfter(["a", "b", "/regen"]), ["a", "b"]);
  assert.deepEqual(await questionsAfter(["a", "/reset", "b"]), ["b"]);
  assert.deepEqual(await questionsAfter(["/undo", "/regen", "/clear"]), []);
});

Deno.test("chat /system shows, sets and survives /reset", async () => {
  const messages = await messagesAfter(["/system Be kind", "a", "/reset"]);
  assert.deepEqual(messages, [{ role: "system", content: "Be kind" }]);
  assert.match((await typed(["/system"])).stderr, /There is no system message/);
});

Deno.test("chat /save and /load keep a conversation; bad files are only remarks", async () => {
  const folder = mkdtempSync(join(tmpdir(), "trilith-test-"));
  try {
    const file = join(folder, "chat.json");
    await typed(["/system S", "a", `/save ${file}`]);
    const { stderr } = await typed([`/load ${file}`, "/system", "/undo"]);
    assert.match(stderr, /Loaded 3 messages[^]*\nS\nTook back/);
    writeFileSync(file, '{"messages": [1]}');
    const bad = await typed([`/load ${file}`, "/load", "/save", `/save ${folder}`, "a"]);
    assert.match(bad.stderr, /Cannot load .*must have "messages"/);
    assert.match(bad.stderr, /Cannot save to .*EISDIR|Cannot save to .*directory/i);
    assert.equal(bad.stdout, `${ALPHABET}\n`);
    assert.equal(bad.code, 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

Deno.test("chat /help lists every command, /stats counts, unknown ones get a hint, /exit leaves", async () => {
  const { stderr, code, stdout } = await typed([
    "/help",
    "/stats",
    "a",
    "/stats",
    "/nope",
    "/exit",
    "b",
  ]);
  for (const name of ["system", "save", "load", "reset", "stats", "exit", "regen", "undo"]) {
    assert.ok(stderr.includes(`/${name}`), name);
  }
  assert.match(stderr, /There was no answer yet/);
  assert.match(stderr, /context \d+ of 256 tokens/);
  const scene = { draftTokens: 1, acceptedTokens: 1 };
  assert.match((await typed(["a", "/stats"], ["-q"], scene)).stderr, / · 1 of 1 guess right · /);
  assert.match(stderr, /There is no \/nope: \/help/);
  assert.equal(stdout, `${ALPHABET}\n`);
  assert.equal(code, 0);
});

Deno.test("chat: Ctrl-C at the prompt leaves only when pressed twice in a row", async () => {
  const twice = await typed([null, null, "a"]);
  assert.equal(twice.code, 130);
  assert.equal(twice.stdout, "");
  const apart = await typed([null, "a", null]);
  assert.equal(apart.code, 0);
  assert.equal(apart.stdout, `${ALPHABET}\n`);
  const inMessage = await typed(["a\\", null, "b"]);
  assert.equal(inMessage.stdout, `${ALPHABET}\n`);
});

Deno.test("chat: Ctrl-C stops the answer, keeps what there is and goes on", async () => {
  const scene = { interruptAfter: "abcd", tokenMs: 2 };
  const { code, stdout, stderr } = await typed(["a", "b"], [], scene);
  const [first, second] = stdout.split("\n");
  assert.match(first, /^abcd/);
  assert.ok(first.length < ALPHABET.length);
  assert.equal(second, ALPHABET);
  assert.match(stderr, /stopped/);
  assert.equal(code, 0);
});

Deno.test("chat: a message too long for the context is an error that a person survives", async () => {
  const long = "x".repeat(300);
  const person = await typed([long, "a"]);
  assert.match(person.stderr, /error: .*the context holds 256/);
  assert.equal(person.stdout, `${ALPHABET}\n`);
  assert.equal(person.code, 0);
  const script = await run(["chat"], { hasTemplate: true, stdin: [`${long}\na\n`] });
  assert.equal(script.stdout, "");
  assert.equal(script.code, 2);
});

Deno.test("chat passes sampling flags on, the model's advice filling in", async () => {
  const { models } = await typed(["a"], ["--temperature", "0.5", "--max-tokens", "3"], {
    defaults: { doSample: true, topP: 0.9 },
  });
  const { temperature, topP, maxTokens } = models[0].lastOptions;
  assert.deepEqual([temperature, topP, maxTokens], [0.5, 0.9, 3]);
});
