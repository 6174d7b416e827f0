/** Pages in headless Chromium that fail the test for whatever a console would complain about. */
import assert from "node:assert/strict";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

/** Nothing on the page takes that long; this only ends what hangs. */
const TIMEOUT_MS = 30_000;

/** It finds no host but this machine, so that a test that fails asks nobody either. */
export function launch(program: string): Promise<Browser> {
  const resolver = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
  return chromium.launch({ executablePath: program, args: ["--no-sandbox", resolver] });
}

export interface PageOptions {
  url: string;
  context?: BrowserContextOptions;
  /** Complaints that the test expects, such as those of refused requests. */
  expected?: RegExp;
  /** Runs in the page before its own scripts. */
  before?: () => void;
}

/** Opens a page in a fresh profile, and checks afterwards that it asked only its own server. */
export async function withPage(
  browser: Browser,
  { url, context: contextOptions, expected, before }: PageOptions,
  use: (page: Page) => Promise<void>,
): Promise<void> {
  const context = await browser.newContext(contextOptions);
  context.setDefaultTimeout(TIMEOUT_MS);
  const complaints: string[] = [];
  const complain = (text: string) => {
    if (!expected?.test(text)) complaints.push(text);
  };
  context.on("request", (request) => {
    // `blob:` and `data:` are asked of nobody.
    const { origin, protocol } = new URL(request.url());
    const isOwn = origin === new URL(url).origin || ["blob:", "data:"].includes(protocol);
    if (!isOwn) complain(`request to ${request.url()}`);
  });
  if (before !== undefined) await context.addInitScript(before);
  context.on("weberror", (error) => complain(String(error.error())));
  context.on("console", (message) => {
    const type = message.type();
    if (type === "error" || type === "warning") complain(`${type}: ${message.text()}`);
  });
  try {
    const page = await context.newPage();
    await page.goto(url);
    await use(page);
    assert.deepEqual(complaints, []);
  } finally {
    await context.close();
  }
}
