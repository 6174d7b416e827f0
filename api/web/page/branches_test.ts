import assert from "node:assert/strict";
import fc from "fast-check";
import {
  addMessage,
  ancestryOf,
  type Conversation,
  matches,
  merge,
  newConversation,
  pathOf,
  select,
  siblingsOf,
  titleOf,
} from "./branches.js";

/** A question, its answer, and a second answer to the same question. */
function branched() {
  const conversation = newConversation("Be kind", 1);
  const question = addMessage(conversation, { parentId: null, role: "user", content: "Why?" }, 2);
  const answer = (content: string, nowMs: number) =>
    addMessage(conversation, { parentId: question.id, role: "assistant", content }, nowMs);
  return { conversation, question, first: answer("Because", 3), second: answer("So", 4) };
}

const textsOf = (conversation: Conversation) => pathOf(conversation).map(({ content }) => content);

Deno.test("branches: the newest is shown, and the others are one selection away", () => {
  const { conversation, first, second } = branched();
  assert.deepEqual(textsOf(conversation), ["Why?", "So"]);
  assert.deepEqual(siblingsOf(conversation, second.id), [first.id, second.id]);
  select(conversation, first.id);
  assert.deepEqual(textsOf(conversation), ["Why?", "Because"]);
  const after = addMessage(conversation, { parentId: first.id, role: "user", content: "Oh" }, 5);
  assert.deepEqual(textsOf(conversation), ["Why?", "Because", "Oh"]);
  assert.deepEqual(siblingsOf(conversation, after.id), [after.id]);
  select(conversation, second.id);
  assert.deepEqual(textsOf(conversation), ["Why?", "So"]);
  assert.deepEqual(
    ancestryOf(conversation, after.id).map(({ content }) => content),
    ["Why?", "Because", "Oh"],
  );
});

Deno.test("branches: another first question is a branch as well", () => {
  const { conversation, question } = branched();
  const other = addMessage(conversation, { parentId: null, role: "user", content: "How?" }, 9);
  assert.deepEqual(siblingsOf(conversation, other.id), [question.id, other.id]);
  assert.deepEqual(textsOf(conversation), ["How?"]);
  assert.equal(conversation.title, "Why?");
});

Deno.test("branches: a selection that names nothing falls back to the newest", () => {
  const { conversation, question } = branched();
  conversation.selected = { start: "gone", [question.id]: question.id };
  assert.deepEqual(textsOf(conversation), ["Why?", "So"]);
});

Deno.test("branches: a file whose messages are each other's parents ends", () => {
  const { conversation, question, first } = branched();
  conversation.messages[question.id].parentId = first.id;
  conversation.selected = {};
  assert.deepEqual(pathOf(conversation), []);
  assert.ok(ancestryOf(conversation, first.id).length <= 3);
});

Deno.test("branches: two windows' versions together lose no message", () => {
  const operation = fc.record({ window: fc.boolean(), parent: fc.nat(), content: fc.string() });
  fc.assert(fc.property(fc.array(operation, { maxLength: 20 }), (operations) => {
    const start = newConversation("", 0);
    addMessage(start, { parentId: null, role: "user", content: "start" }, 1);
    const windows = [structuredClone(start), structuredClone(start)];
    operations.forEach(({ window, parent, content }, index) => {
      const conversation = windows[Number(window)];
      const ids = Object.keys(conversation.messages);
      const parentId = ids[parent % ids.length];
      addMessage(conversation, { parentId, role: "user", content }, index + 2);
    });
    const both = merge(windows[0], windows[1]);
    assert.deepEqual(both.messages, { ...windows[0].messages, ...windows[1].messages });
    assert.deepEqual(merge(both, windows[0]).messages, both.messages);
    assert.deepEqual(textsOf(both).slice(0, 1), ["start"]);
  }));
});

Deno.test("branches: the later version of a message, and the later title win", () => {
  const { conversation, first } = branched();
  const stored = structuredClone(conversation);
  stored.messages[first.id] = { ...first, content: "Because it grew", updatedMs: 20 };
  stored.title = "Renamed";
  stored.headMs = 30;
  conversation.updatedMs = 40;
  const both = merge(stored, conversation);
  assert.equal(both.messages[first.id].content, "Because it grew");
  assert.equal(both.title, "Renamed");
  assert.equal(both.updatedMs, 40);
  const newer = { ...conversation, title: "Again", headMs: 50 };
  assert.equal(merge(stored, newer).title, "Again");
});

Deno.test("branches: titles are a line, cut between words", () => {
  assert.equal(titleOf("  Hello\tthere \nmore"), "Hello there");
  const long = titleOf("word ".repeat(40));
  assert.match(long, /^(word )+word…$/);
  assert.ok(long.length <= 61);
  assert.equal(titleOf("x".repeat(100)), `${"x".repeat(60)}…`);
});

Deno.test("branches: a search looks for all words in all messages of all branches", () => {
  const { conversation } = branched();
  for (const query of ["", "why", "BECAUSE", "so because"]) assert.ok(matches(conversation, query));
  assert.ok(!matches(conversation, "because never"));
});
