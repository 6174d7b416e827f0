/** The web chat in a real browser, over a scripted server, and once over the story model. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Browser, Page } from "playwright-core";
import { createApp } from "../api/app.ts";
import { ModelHost } from "../api/host.ts";
import { startServer } from "../api/server.ts";
import { DEFAULT_API_CONFIG } from "../api/services.ts";
import { loadModel } from "../runtime/mod.ts";
import { launch, type PageOptions, withPage } from "./browser.ts";
import * as probes from "./page_probes.js";
import { ScriptedServer } from "./scripted_server.ts";
import { chromium, testWith } from "./tools.ts";

const PHONE = { viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true };

/** What a console says of every answer that is not a success. */
const REFUSED = /Failed to load resource/;

const question = (page: Page) => page.getByRole("textbox", { name: "Message", exact: true });
const answer = (page: Page) => page.locator(".message.assistant").last();
const button = (page: Page, name: string | RegExp) =>
  page.getByRole("button", typeof name === "string" ? { name, exact: true } : { name });

/** Asks, and waits for the end of the answer. */
async function ask(page: Page, text: string): Promise<void> {
  await question(page).fill(text);
  await ready(page);
  await question(page).press("Enter");
  await ended(page);
}

/** The page has found its server: before that nothing that is typed is sent. */
async function ready(page: Page): Promise<void> {
  await eventually(() => button(page, "Send").isEnabled(), true);
}

async function ended(page: Page): Promise<void> {
  await page.locator('.message.assistant:last-child[aria-busy="false"]').waitFor();
  await button(page, "Send").waitFor();
}

async function texts(page: Page): Promise<string[]> {
  const all = await page.locator(".message-body").allInnerTexts();
  return all.map((text) => text.trim());
}

/** Uses a button of a conversation, which is seen when the mouse is over it. */
async function inList(page: Page, title: string, action: string): Promise<void> {
  await button(page, title).hover();
  await button(page, `${action}: ${title}`).click();
}

/** Waits until `read` gives what is expected, as pages follow a moment later. */
async function eventually<T>(read: () => T | Promise<T>, expected: T): Promise<void> {
  for (let tries = 0; tries < 1000; tries++) {
    try {
      return assert.deepEqual(await read(), expected);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }
  assert.deepEqual(await read(), expected);
}

/** Name of a step, and what it does with a page of its own over a server of its own. */
type Step = [
  name: string,
  use: (page: Page, server: ScriptedServer) => Promise<void>,
  options?: Partial<PageOptions>,
  prepare?: (server: ScriptedServer) => void,
];

const STEPS: Step[] = [];

function step(...all: Step): void {
  STEPS.push(all);
}

step("an answer streams in, and its statistics follow", async (page, server) => {
  const gate = Promise.withResolvers<void>();
  server.script = ["Once upon", " a time", gate.promise, " there was *one*."];
  await question(page).fill("Tell me");
  await button(page, "Send").click();
  await answer(page).getByText("Once upon a time").waitFor();
  assert.equal(await answer(page).getAttribute("aria-busy"), "true");
  gate.resolve();
  await ended(page);
  assert.deepEqual(await texts(page), ["Tell me", "Once upon a time there was one."]);
  assert.equal(await answer(page).locator("em").innerText(), "one");
  const figures = await page.getByRole("list", { name: "Statistics of this answer" }).innerText();
  for (const figure of [/123 tokens\/s/, /15 tokens/, /prompt 10/, /cached 4/, /first after/]) {
    assert.match(figures, figure);
  }
  const gauge = page.getByRole("meter", { name: "Context used" });
  assert.equal(await gauge.getAttribute("aria-valuetext"), "25 of 100 tokens");
  const [{ messages, stream, stream_options, model }] = server.asked;
  assert.deepEqual(messages, [{ role: "user", content: "Tell me" }]);
  assert.deepEqual([stream, stream_options, model], [true, { include_usage: true }, "scripted"]);
});

step("Stop ends the request, and what came stays and goes on", async (page, server) => {
  const never = Promise.withResolvers<void>();
  server.script = ["Half an", never.promise, " answer"];
  await question(page).fill("Tell me");
  await question(page).press("Enter");
  await answer(page).getByText("Half an").waitFor();
  await button(page, "Stop").click();
  await ended(page);
  never.resolve();
  await eventually(() => server.aborted, 1);
  assert.equal(await answer(page).locator(".message-body").innerText(), "Half an");
  server.script = [" answer more"];
  await button(page, "Continue this answer").click();
  await answer(page).getByText("Half an answer more").waitFor();
  await ended(page);
  assert.equal((server.asked[1].prompt as string[]).join(""), "Tell meHalf an");
});

step("editing and answering again keep all branches", async (page, server) => {
  server.script = ["first"];
  await ask(page, "one");
  server.script = ["second"];
  await button(page, "Answer again").click();
  await page.getByText("2/2").waitFor();
  await ended(page);
  assert.deepEqual(await texts(page), ["one", "second"]);
  await button(page, "Previous version").click();
  await eventually(() => texts(page), ["one", "first"]);
  await page.getByText("1/2").waitFor();
  assert.ok(await button(page, "Previous version").isDisabled());

  server.script = ["third"];
  await button(page, "Edit message").click();
  const editor = page.getByRole("textbox", { name: "Edit message" });
  assert.equal(await editor.inputValue(), "one");
  await editor.fill("other");
  await editor.press("Enter");
  await answer(page).getByText("third").waitFor();
  await ended(page);
  assert.deepEqual(await texts(page), ["other", "third"]);
  await button(page, "Previous version").click();
  await eventually(() => texts(page), ["one", "first"]);
  await ask(page, "more");
  const { messages } = server.asked.at(-1)!;
  assert.deepEqual((messages as { content: string }[]).map(({ content }) => content), [
    "one",
    "first",
    "more",
  ]);
});

const HOSTILE = `<script>globalThis.isHacked = true</script>

<img src=x onerror="globalThis.isHacked = true"> and <svg onload=alert(1)></svg> text

[click](javascript:globalThis.isHacked=true) [data](data:text/html,x) [fine](https://example.org/a)

![tracker](https://example.org/pixel.png) <b class="main-button" style="position:fixed">b</b>

<style>body { display: none }</style><iframe src="https://example.org"></iframe>

<form action="https://example.org"><input name=q></form><a href="https://example.org" onclick="alert(1)">raw</a>

- [x] done
- [ ] to do
`;

step("hostile text stays text", async (page, server) => {
  server.script = HOSTILE.match(/[\s\S]{1,40}/g)!;
  await ask(page, "Attack");
  const inside = await answer(page).evaluate(probes.contentsOf);
  for (const tag of ["script", "img", "svg", "style", "iframe", "form", "input"]) {
    assert.ok(!inside.tags.includes(tag), tag);
  }
  for (const attribute of inside.attributes) assert.match(attribute, /^(href|rel|target)$/);
  const made = ["noopener noreferrer nofollow", "_blank"];
  assert.deepEqual(inside.links.filter(([, href]) => href !== null), [
    ["fine", "https://example.org/a", ...made],
    ["tracker", "https://example.org/pixel.png", ...made],
  ]);
  assert.equal(await page.evaluate(probes.isHacked), false);
  const text = await answer(page).innerText();
  for (const shown of ["<script>", "<img src=x", "<iframe", "☑ done", "☐ to do", "raw"]) {
    assert.ok(text.includes(shown), shown);
  }
});

step("behind the sanitiser stands the policy", async (page) => {
  const refused = await page.evaluate(probes.attack);
  for (const directive of ["base-uri", "connect-src", "img-src", "style-src-elem"]) {
    assert.ok(refused.includes(directive), `${directive} is not among ${refused}`);
  }
  assert.ok(refused.includes("require-trusted-types-for") && refused.includes("TypeError"));
  assert.equal(await page.evaluate(probes.isHacked), false);
}, { expected: /Content Security Policy|requires 'Trusted|request to https:\/\/example/ });

step("text that is nested too deeply is shown as it is", async (page, server) => {
  const deep = `${">".repeat(20_000)} deep`;
  server.script = ["*fine*\n\n", deep];
  await ask(page, "Dig");
  assert.ok((await answer(page).locator(".plain").innerText()).endsWith("> deep"));
});

const MARKDOWN = `# Title

A [link][1], ~~gone~~ and \`code\`.

| a | b |
| --- | --: |
| 1 | 2 |

\`\`\`typescript
const x: number = "y".length; // why
\`\`\`

3. three
4. four

[1]: https://example.org/
`;

step("Markdown, coloured code, and what is copied", async (page, server) => {
  server.script = MARKDOWN.match(/[\s\S]{1,7}/g)!;
  await ask(page, "Show me");
  const message = answer(page);
  assert.equal(await message.getByRole("heading", { name: "Title" }).count(), 1);
  assert.equal(
    await message.getByRole("link", { name: "link" }).getAttribute("href"),
    "https://example.org/",
  );
  assert.equal(await message.locator("del").innerText(), "gone");
  const alignments = await message.getByRole("cell").evaluateAll(probes.alignments);
  assert.deepEqual(alignments, [null, "right"]);
  assert.equal(await message.locator("ol").getAttribute("start"), "3");
  await message.locator(".hljs-keyword").first().waitFor();
  assert.equal(await message.locator(".hljs-comment").innerText(), "// why");
  const copied = () => page.evaluate(probes.clipboardText);
  await button(page, "Copy code").click();
  await eventually(copied, 'const x: number = "y".length; // why\n');
  await message.getByRole("button", { name: "Copy message" }).click();
  await eventually(copied, MARKDOWN);
  await button(page, "Show as plain text").click();
  await eventually(() => message.locator(".plain").textContent(), MARKDOWN);
}, { context: { permissions: ["clipboard-read", "clipboard-write"] } });

step("a huge table scrolls by itself", async (page, server) => {
  const row = `|${" cell |".repeat(30)}\n`;
  server.script = [row, `|${" --- |".repeat(30)}\n`, row.repeat(100), row.repeat(100)];
  await ask(page, "Table");
  assert.equal(await page.getByRole("cell").count(), 6_000);
  assert.ok(await page.locator(".table-frame").evaluate(probes.scrollsSideways));
  assert.equal(await page.evaluate(probes.isWiderThanWindow), false);
});

step(
  "history survives a reload, and can be searched, renamed, deleted and brought back",
  async (page, server) => {
    server.script = ["about foxes"];
    await ask(page, "Animals");
    await button(page, "New chat").click();
    server.script = ["about oaks"];
    await ask(page, "Trees");
    await page.reload();
    await eventually(() => texts(page), ["Trees", "about oaks"]);
    const titles = () => page.locator(".conversation-title").allInnerTexts();
    await eventually(titles, ["Trees", "Animals"]);
    await page.keyboard.press("Control+k");
    await page.keyboard.type("FOX");
    await eventually(titles, ["Animals"]);
    await page.getByRole("searchbox").fill("");
    await button(page, "Animals").click();
    await eventually(() => texts(page), ["Animals", "about foxes"]);
    await inList(page, "Animals", "Rename");
    await page.getByRole("textbox", { name: "Title" }).fill("Beasts");
    await page.keyboard.press("Enter");
    await eventually(titles, ["Trees", "Beasts"]);
    await button(page, "Trees").hover();
    await button(page, "Delete: Trees").click();
    await eventually(titles, ["Beasts"]);
    await button(page, "Undo").click();
    await eventually(titles, ["Trees", "Beasts"]);
    await button(page, "Trees").hover();
    await button(page, "Delete: Trees").click();
    // The list tells what is kept: before that a reload would be faster than the database.
    await eventually(titles, ["Beasts"]);
    await page.reload();
    await eventually(() => page.locator(".conversation-title").count(), 1);
    await eventually(titles, ["Beasts"]);
  },
);

step("what is exported can be imported elsewhere", async (page, server) => {
  await ask(page, "Keep this");
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    button(page, "Export all").click(),
  ]);
  const file = await download.path();
  await inList(page, "Keep this", "Delete");
  await eventually(() => page.locator(".conversation").count(), 0);
  await page.locator("#import-file").setInputFiles(file);
  await button(page, "Keep this").click();
  await eventually(() => texts(page), ["Keep this", "Hello"]);
  const wrong = { name: "x.json", mimeType: "application/json", buffer: Buffer.from("{}") };
  await page.locator("#import-file").setInputFiles(wrong);
  await page.getByRole("alert").getByText('x.json: Cannot import the file as it has no "format"')
    .waitFor();
  assert.equal(server.asked.length, 1);
});

step("settings are sent, and the server's defaults are shown", async (page, server) => {
  await page.locator("summary").click();
  await page.getByRole("textbox", { name: "System prompt of this chat" }).fill("Be brief");
  await button(page, "Settings").click();
  const field = (label: string) => page.getByLabel(label, { exact: true });
  assert.equal(await field("Top K").getAttribute("placeholder"), "40");
  assert.equal(await field("Temperature").getAttribute("placeholder"), "1");
  await field("Temperature").fill("0.25");
  await field("Top P").fill("2");
  await page.getByText("Top P must be at most 1. It is not sent.").waitFor();
  await field("Longest answer").fill("7");
  await field("Seed").fill("42");
  await field("Stop strings").fill("END");
  await field("JSON").fill('{"logit_bias": {"5": -100}}');
  await page.keyboard.press("Escape");
  await ask(page, "Hi");
  await page.reload();
  await page.getByText("System prompt Be brief").waitFor();
  await ask(page, "Again");
  for (const { messages, model: _, stream: _s, stream_options: _o, ...fields } of server.asked) {
    assert.deepEqual((messages as unknown[])[0], { role: "system", content: "Be brief" });
    assert.deepEqual(fields, {
      temperature: 0.25,
      max_tokens: 7,
      seed: 42,
      stop: ["END"],
      logit_bias: { "5": -100 },
    });
  }
  assert.equal(server.asked.length, 2);
});

step(
  "without /props, the page does without its figures",
  async (page) => {
    await ask(page, "Hi");
    assert.ok(await page.getByRole("meter").isHidden());
    await button(page, "Settings").click();
    const topK = page.getByLabel("Top K", { exact: true });
    assert.equal(await topK.getAttribute("placeholder"), "server's default");
  },
  { expected: REFUSED },
  (server) => {
    server.hasProps = false;
  },
);

/** Colours of text, and of what it lies on, by their names in the style sheet. */
const TEXT_COLOURS = [
  ...["ink", "quiet", "accent", "danger"].flatMap((ink) =>
    ["paper", "side", "raised"].map((paper) => [ink, paper])
  ),
  ["on-accent", "accent"],
  ["ink", "bubble"],
  ["accent", "bubble"],
  ["ink", "danger-paper"],
  ["accent", "danger-paper"],
  ["danger", "danger-paper"],
  ...["keyword", "string", "number", "title", "comment"].map((kind) => [
    `code-${kind}`,
    "code-paper",
  ]),
];

step("light and dark, by the system or by choice, and readable in both", async (page) => {
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    const ratios = await page.evaluate(probes.contrasts, TEXT_COLOURS);
    TEXT_COLOURS.forEach(([ink, paper], index) => {
      const ratio = ratios[index];
      assert.ok(
        ratio >= 4.5,
        `${scheme}: ${ink} on ${paper} has a contrast of ${ratio.toFixed(2)}`,
      );
    });
  }
  const paper = () => page.evaluate(probes.paperColour);
  const dark = await paper();
  await button(page, "Use light colours").click();
  const light = await paper();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await paper(), light);
  await button(page, "Settings").click();
  await page.getByLabel("Colours", { exact: true }).selectOption("system");
  assert.equal(await paper(), dark);
  const other = await page.context().newPage();
  await other.goto(page.url());
  await page.getByLabel("Colours", { exact: true }).selectOption("dark");
  await eventually(() => other.evaluate(probes.paperColour), dark);
  await button(other, "Use light colours").waitFor();
});

step("a phone has a drawer, and nothing is wider than it", async (page, server) => {
  server.script = [`Long\`${"x".repeat(300)}\` and\n\n\`\`\`\n${"y".repeat(300)}\n\`\`\`\n`];
  await ask(page, "z".repeat(200));
  const isWider = () => page.evaluate(probes.isWiderThanWindow);
  assert.equal(await isWider(), false);
  assert.ok(await page.locator("#sidebar").isHidden());
  await button(page, "Conversations").tap();
  await page.getByRole("searchbox").waitFor();
  await eventually(() => page.evaluate(probes.activeId), "search");
  assert.equal(await isWider(), false);
  await page.keyboard.press("Escape");
  await eventually(() => page.locator("#sidebar").isHidden(), true);
  assert.equal(await page.evaluate(probes.activeId), "menu");
  await button(page, "Conversations").tap();
  await button(page, "New chat").tap();
  await eventually(() => page.locator("#sidebar").isHidden(), true);
  await button(page, "Settings").tap();
  assert.equal(await isWider(), false);
  const isBodyWider = await page.locator(".dialog-body").first().evaluate(probes.scrollsSideways);
  assert.equal(isBodyWider, false);
}, { context: PHONE });

step("the keyboard alone is enough", async (page, server) => {
  const never = Promise.withResolvers<void>();
  const keys = page.keyboard;
  await eventually(() => page.evaluate(probes.activeId), "question");
  await keys.type("one");
  await keys.press("Shift+Enter");
  await keys.type("two");
  await ready(page);
  await keys.press("Enter");
  await ended(page);
  assert.deepEqual((server.asked[0].messages as unknown[])[0], {
    role: "user",
    content: "one\ntwo",
  });
  server.script = ["Begun", never.promise];
  await keys.type("three");
  await keys.press("Enter");
  await answer(page).getByText("Begun").waitFor();
  await keys.press("Escape");
  await ended(page);
  never.resolve();
  await keys.press("ArrowUp");
  await keys.type("changed");
  await keys.press("Escape");
  assert.deepEqual(await texts(page), ["one\ntwo", "Hello", "three", "Begun"]);
  assert.equal(await page.evaluate(probes.activeName), "Edit message");
  await keys.press("?");
  await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
  await keys.press("Escape");
  await keys.press("Control+Shift+O");
  await eventually(() => texts(page), []);
  await keys.press("Shift+Tab");
  await keys.press("Tab");
  await eventually(() => page.evaluate(probes.activeId), "question");
});

step("everything has a name, and the answer is read out by sentences", async (page, server) => {
  server.script = ["One. ", "Two. ", "```js\nlet x;\n```\n", "| a |\n| - |\n| b |\n"];
  await page.evaluate(probes.listenToAnnouncements);
  await ask(page, "Speak");
  await button(page, "Answer again").click();
  await page.getByText("2/2").waitFor();
  await ended(page);
  const said = await page.evaluate(probes.announcements);
  assert.ok(said.length <= 6, `${said.length} announcements`);
  assert.match(said.join("\n"), /Answering\n[\s\S]*One\. Two\.[\s\S]*Answer complete/);
  await button(page, "Settings").click();
  assert.deepEqual(await page.evaluate(probes.unnamed), []);
  await page.keyboard.press("Escape");
  for (const role of ["main", "navigation"] as const) {
    assert.equal(await page.getByRole(role).count(), 1, role);
  }
  assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);
  assert.equal(await page.locator("html").getAttribute("lang"), "en");
});

step(
  "a key is asked for, kept, and sent",
  async (page, server) => {
    await page.getByText("This server needs an API key").waitFor();
    assert.ok(await button(page, "Send").isDisabled());
    await button(page, "Enter the key").click();
    assert.equal(await page.evaluate(probes.activeId), "api-key");
    await page.keyboard.type("secret");
    await page.getByText("This server needs an API key").waitFor({ state: "hidden" });
    await page.keyboard.press("Escape");
    await ask(page, "Hi");
    await page.reload();
    await ask(page, "Hi again");
    assert.equal(server.asked.length, 2);
  },
  { expected: REFUSED },
  (server) => {
    server.key = "secret";
  },
);

step(
  "a model that loads is waited for",
  async (page, server) => {
    await page.getByText("The model is loading: Packing weights (33 %)").waitFor();
    const spinner = page.locator(".spinner");
    assert.equal(await spinner.evaluate(probes.animationOf), "turn");
    await page.emulateMedia({ reducedMotion: "reduce" });
    assert.equal(await spinner.evaluate(probes.animationOf), "none");
    await question(page).fill("Hi");
    await question(page).press("Enter");
    assert.equal(await question(page).inputValue(), "Hi");
    server.isLoading = false;
    await page.getByText("The model is loading").waitFor({ state: "hidden" });
    await question(page).press("Enter");
    await ended(page);
    assert.deepEqual(await texts(page), ["Hi", "Hello"]);
  },
  { expected: REFUSED },
  (server) => {
    server.isLoading = true;
  },
);

step("failures say why, and can be tried again", async (page, server) => {
  server.refusal = { status: 503, message: "The queue is full: try again soon" };
  await question(page).fill("Hi");
  await question(page).press("Enter");
  await page.getByText("No answer: The queue is full: try again soon").waitFor();
  server.refusal = null;
  server.script = ["Some", new Error("The engine broke")];
  await button(page, "Try again").click();
  await page.getByText("The answer broke off: The engine broke").waitFor();
  await eventually(() => texts(page), ["Hi", "Some"]);
  server.script = ["All"];
  await button(page, "Try again").click();
  await page.getByText("2/2").waitFor();
  await ended(page);
  assert.deepEqual(await texts(page), ["Hi", "All"]);
}, { expected: REFUSED });

step("a full browser loses nothing silently", async (page) => {
  const protocol = await page.context().newCDPSession(page);
  const { origin } = new URL(page.url());
  await protocol.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1 });
  await ask(page, "Hi");
  await page.getByRole("alert").getByText("its storage is full").waitFor();
  assert.deepEqual(await texts(page), ["Hi", "Hello"]);
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("alert").getByRole("button", { name: "Export" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "Hi.json");
});

step("without IndexedDB, localStorage keeps the history", async (page) => {
  await ask(page, "Hi");
  await page.reload();
  await eventually(() => texts(page), ["Hi", "Hello"]);
  await inList(page, "Hi", "Delete");
  await eventually(() => page.locator(".conversation").count(), 0);
}, { before: probes.withoutIndexedDb });

step(
  "an answer goes on while another chat is shown, and is not brought back when deleted",
  async (page, server) => {
    const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    server.script = ["slow", first.promise, " and steady"];
    await question(page).fill("One");
    await question(page).press("Enter");
    await answer(page).getByText("slow").waitFor();
    await button(page, "New chat").click();
    server.script = ["quick"];
    await ask(page, "Two");
    first.resolve();
    await button(page, "One").click();
    await answer(page).getByText("slow and steady").waitFor();
    await ended(page);
    server.script = ["never", second.promise];
    await question(page).fill("Three");
    await question(page).press("Enter");
    await answer(page).getByText("never").waitFor();
    await inList(page, "One", "Delete");
    await eventually(() => server.aborted, 1);
    second.resolve();
    await page.reload();
    await eventually(() => page.locator(".conversation-title").allInnerTexts(), ["Two"]);
  },
);

step("who scrolls up is left there", async (page, server) => {
  const gate = Promise.withResolvers<void>();
  const paragraphs = Array.from({ length: 60 }, (_, index) => `Paragraph ${index}\n\n`);
  server.script = [...paragraphs, gate.promise, ...paragraphs, "The end"];
  await question(page).fill("Much");
  await question(page).press("Enter");
  await answer(page).getByText("Paragraph 59").waitFor();
  const top = () => page.locator("#scroller").evaluate(probes.scrollPosition);
  await page.locator("#scroller").evaluate(probes.scrollUp);
  await button(page, "Scroll to the end").waitFor();
  const before = await top();
  gate.resolve();
  await ended(page);
  assert.equal(await top(), before);
  await button(page, "Scroll to the end").click();
  await button(page, "Scroll to the end").waitFor({ state: "hidden" });
  assert.ok(await top() > before);
});

step("two windows share one history, even where both write it at once", async (page, server) => {
  await ask(page, "One");
  const other = await page.context().newPage();
  await other.goto(page.url());
  await eventually(() => texts(other), ["One", "Hello"]);
  const gate = Promise.withResolvers<void>();
  server.script = ["slow", gate.promise, " end"];
  await question(page).fill("Two");
  await question(page).press("Enter");
  await answer(page).getByText("slow").waitFor();
  await eventually(async () => (await texts(other))[2], "Two");
  server.script = ["quick"];
  await ask(other, "Three");
  gate.resolve();
  const all = ["One", "Hello", "Two", "slow end", "Three", "quick"];
  for (const window of [page, other]) await eventually(() => texts(window), all);
});

async function run(browser: Browser, [, use, options = {}, prepare]: Step): Promise<void> {
  await using server = new ScriptedServer();
  prepare?.(server);
  await withPage(browser, { url: server.url, ...options }, (page) => use(page, server));
}

testWith(chromium(), "web chat", async ([program], t) => {
  const browser = await launch(program);
  try {
    for (const each of STEPS) await t.step(each[0], () => run(browser, each));
    await t.step("a server that goes away is waited for", () => serverGone(browser));
    await t.step("the story model tells a story", () => storyModel(browser));
  } finally {
    await browser.close();
  }
});

async function serverGone(browser: Browser): Promise<void> {
  const first = new ScriptedServer();
  const { url, port } = first;
  await withPage(browser, { url, expected: REFUSED }, async (page) => {
    await ask(page, "Hi");
    await first[Symbol.asyncDispose]();
    await question(page).fill("Are you there?");
    await question(page).press("Enter");
    await page.getByText("No answer: The server can't be reached").waitFor();
    await button(page, "Try now").waitFor();
    await using _second = new ScriptedServer(port);
    await button(page, "Try now").click();
    await button(page, "Try now").waitFor({ state: "hidden" });
    await button(page, "Try again").click();
    await ended(page);
    assert.deepEqual(await texts(page), ["Hi", "Hello", "Are you there?", "Hello"]);
  });
}

/** Everything is real here: the routes, their middleware with a key, and a model that is drawn from. */
async function storyModel(browser: Browser): Promise<void> {
  const host = new ModelHost("story", () => loadModel(undefined, { threads: 1 }));
  await using _model = await host.loaded;
  const observer = { firstToken: () => {}, tokens: () => {}, ended: () => {} };
  const services = { host, config: DEFAULT_API_CONFIG, observer };
  const app = createApp(services, { apiKeys: ["secret"] });
  const server = await startServer({ host: "127.0.0.1", port: 0 }, app.fetch);
  const { port } = server.place as { port: number };
  try {
    const url = `http://127.0.0.1:${port}/`;
    await withPage(browser, { url, expected: REFUSED }, (page) => tellStories(page));
  } finally {
    await server.stop();
  }
}

async function tellStories(page: Page): Promise<void> {
  await button(page, "Enter the key").click();
  await page.keyboard.type("secret");
  await page.getByText("story", { exact: true }).waitFor();
  await page.getByLabel("Seed", { exact: true }).fill("7");
  await page.getByLabel("Longest answer", { exact: true }).fill("24");
  await page.keyboard.press("Escape");
  await ask(page, "Once upon a time");
  const [, first] = await texts(page);
  assert.ok(first.split(" ").length > 10, first);
  await page.getByText("length limit").waitFor();
  assert.match(await page.locator("#gauge-text").innerText(), /^\d\d \/ 512$/);
  await button(page, "Answer again").click();
  await page.getByText("2/2").waitFor();
  await ended(page);
  assert.equal((await texts(page))[1], first, "the same seed, the same story");
  await button(page, "Continue this answer").click();
  await ended(page);
  const [, longer] = await texts(page);
  assert.ok(longer.startsWith(first) && longer.length > first.length, longer);
  await ask(page, "word ".repeat(600));
  await page.getByText(/No answer: .*512/).waitFor();
}
