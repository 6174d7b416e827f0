import assert from "node:assert/strict";
import { screenOf, terminalSvg } from "./terminal_svg.ts";

/** The screen's lines without their styles. */
function textOf(recording: string, columns = 80): string[] {
  return screenOf(recording, columns).map((line) => line.map(({ text }) => text).join(""));
}

Deno.test("terminal_svg: a progress line that was wiped leaves nothing", () => {
  assert.deepEqual(textOf("\r\x1b[2KPacking 10 %\r\x1b[2KPacking 20 %\r\x1b[2Kdone\r\n"), ["done"]);
});

Deno.test("terminal_svg: text after a return replaces what it covers", () => {
  assert.deepEqual(textOf("12345\rab\n"), ["ab345"]);
  assert.deepEqual(textOf("12345\rab\x1b[K\n"), ["ab"]);
  assert.deepEqual(textOf("12345\x1b[2Gab\n"), ["1ab45"]);
});

Deno.test("terminal_svg: long lines go on in the next one", () => {
  assert.deepEqual(textOf("abcdef", 4), ["abcd", "ef"]);
  assert.deepEqual(textOf("abcd\nef", 4), ["abcd", "ef"]);
});

Deno.test("terminal_svg: what script says of itself is left out", () => {
  const recording = "Script started on 2026-01-01 [COMMAND=x]\nhi\r\n\nScript done on 2026-01-01\n";
  assert.deepEqual(textOf(recording), ["hi"]);
});

Deno.test("terminal_svg: styles start and end where their codes stand", () => {
  assert.deepEqual(screenOf("a\x1b[2mbc\x1b[0md\x1b[31me\x1b[39m", 80), [[
    { text: "a", style: "plain" },
    { text: "bc", style: "dim" },
    { text: "d", style: "plain" },
    { text: "e", style: "red" },
  ]]);
});

Deno.test("terminal_svg: text is escaped and starts in its column", () => {
  const svg = terminalSvg(screenOf("  \x1b[1m<&>\x1b[0m", 80), 80, "a & b");
  assert.match(svg, /<title>a &amp; b<\/title>/);
  assert.match(svg, /<text x="34\.8" y="66" textLength="25\.2" [^>]*>&lt;&amp;&gt;<\/text>/);
});

Deno.test("terminal_svg: the picture shows the recording beside it", async () => {
  const read = (name: string) => Deno.readTextFile(new URL(name, import.meta.url));
  const words = screenOf(await read("first_runs.txt"), 100)
    .flatMap((line) => line.flatMap(({ text }) => text.trim().split(/\s+/)));
  // The formatter may have broken lines.
  const picture = (await read("first_runs.svg")).replaceAll(/<[^>]*>/g, " ")
    .replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&").split(/\s+/);
  assert.ok(words.length > 50);
  assert.deepEqual(words.filter((word) => !picture.includes(word)), []);
});
