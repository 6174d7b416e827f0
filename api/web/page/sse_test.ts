import assert from "node:assert/strict";
import fc from "fast-check";
import { EventParser, eventsOf } from "./sse.js";

const TEXT =
  ': ping\n\ndata: {"a":1}\r\n\r\ndata:two\ndata: lines\n\nevent: x\ndata: é\n\ndata: [DONE]\n\n';
const EVENTS = ['{"a":1}', "two\nlines", "é", "[DONE]"];

Deno.test("sse: events are the same however the stream is cut", () => {
  fc.assert(fc.property(fc.array(fc.nat(TEXT.length)), (cuts) => {
    const places = [0, ...cuts.sort((a, b) => a - b), TEXT.length];
    const parser = new EventParser();
    const events = places.slice(1).flatMap((to, index) =>
      parser.feed(TEXT.slice(places[index], to))
    );
    assert.deepEqual(events, EVENTS);
  }));
});

Deno.test("sse: bytes may be cut in the middle of a character", async () => {
  const bytes = new TextEncoder().encode(TEXT);
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  assert.deepEqual(await Array.fromAsync(eventsOf(body)), EVENTS);
});

Deno.test("sse: an event that is not ended is none", () => {
  assert.deepEqual(new EventParser().feed("data: half"), []);
});

Deno.test("sse: who stops reading cancels the stream", async () => {
  let isCancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => void (isCancelled = true),
  });
  for await (const data of eventsOf(body)) {
    assert.equal(data, "x");
    break;
  }
  assert.ok(isCancelled);
});
