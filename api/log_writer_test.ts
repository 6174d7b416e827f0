import assert from "node:assert/strict";
import { LogWriter } from "./log_writer.ts";

Deno.test("log writer: lines come in order, those that wait together at once", async () => {
  const written: string[] = [];
  const writer = new LogWriter(async (text) => {
    await Promise.resolve();
    written.push(text);
  });
  for (const line of ["a\n", "b\n", "c\n"]) writer.add(line);
  await writer.flush(1000);
  assert.equal(written.join(""), "a\nb\nc\n");
  assert.equal(written.length, 2);
  writer.add("d\n");
  await writer.flush(1000);
  assert.equal(written.at(-1), "d\n");
});

Deno.test("log writer: a full disk loses lines, counts them, and is tried again", async () => {
  let isFull = true;
  let text = "";
  const writer = new LogWriter((lines) => {
    if (isFull) return Promise.reject(new Error("ENOSPC"));
    text += lines;
    return Promise.resolve();
  });
  for (let i = 0; i < 3; i++) writer.add("lost\n");
  await writer.flush(1000);
  assert.equal(writer.lost, 3);
  isFull = false;
  writer.add("kept\n");
  await writer.flush(1000);
  assert.equal(text, "kept\n");
});

Deno.test("log writer: who does not read is waited for neither while it runs nor at the end", async () => {
  const writer = new LogWriter(() => new Promise(() => {}));
  for (let i = 0; i < 20_000; i++) writer.add("line\n");
  assert.equal(writer.lost, 9_999, "one is being written, 10,000 wait");
  await writer.flush(5);
});
