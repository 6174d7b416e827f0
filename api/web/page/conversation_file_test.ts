import assert from "node:assert/strict";
import { addMessage, newConversation } from "./branches.js";
import { exportText, fileNameOf, importText } from "./conversation_file.js";

function conversation() {
  const made = newConversation("Be brief", 1);
  const question = addMessage(made, { parentId: null, role: "user", content: "Why?" }, 2);
  const answer = addMessage(made, { parentId: question.id, role: "assistant", content: "So" }, 3);
  Object.assign(answer, { finishReason: "stop", statistics: { promptTokens: 4 }, error: "late" });
  return made;
}

Deno.test("conversation file: what was exported is imported", () => {
  const made = [conversation(), conversation()];
  assert.deepEqual(importText(exportText(made)), made);
});

Deno.test("conversation file: what is not one says why", () => {
  const wrong = (change: object) =>
    JSON.stringify({ ...JSON.parse(exportText([conversation()])), ...change });
  const refused = (text: string, reason: RegExp) =>
    assert.throws(() => importText(text), (error: Error) => {
      assert.equal(error.name, "SyntaxError");
      assert.match(error.message, reason);
      return true;
    });
  refused("{", /not JSON/);
  refused("null", /"format"/);
  refused(wrong({ format: "other" }), /"format"/);
  refused(wrong({ version: 2 }), /version must be 1: current value is 2/);
  refused(wrong({ conversations: [{ id: "" }] }), /conversation 1 as its id/);
  refused(wrong({ conversations: [{ id: "a", messages: [] }] }), /messages must be an object/);
  const message = { id: "m", role: "system", content: "x" };
  refused(wrong({ conversations: [{ id: "a", messages: { m: message } }] }), /role must be/);
  refused(wrong({ conversations: [{ id: "a", messages: { m: { id: "m" } } }] }), /id and content/);
});

Deno.test("conversation file: fields that are not ours are left out", () => {
  const made: Record<string, unknown> = { ...conversation(), __proto__: null, extra: 1, system: 5 };
  const [read] = importText(exportText([made]));
  assert.ok(!("extra" in read));
  assert.equal(read.system, "");
});

Deno.test("conversation file: names are safe on every system", () => {
  assert.equal(fileNameOf("What / is: ünder?"), "What_is_ünder.json");
  assert.equal(fileNameOf("../.."), "conversation.json");
});
