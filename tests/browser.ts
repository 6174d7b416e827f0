/** Pages in headless Chromium that fail the test for whatever a console would complain about. */
import assert from "node:assert/strict";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

/** Nothing on the page takes that long; this only ends what hangs. */
const TIMEOUT_MS = 15_000;

export function launch(program: string): Promise<Browser> {
  return chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
}

export interface PageOptions {
  url: string;
  context?: BrowserContextOptions;
  /** Messages of the console that the test expects, such as those of refused requests. */
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
  await context.route("**/*", async (route) => {
    const asked = route.request().url();
    if (new URL(asked).origin === new URL(url).origin) return await route.continue();
    complaints.push(`request to ${asked}`);
    await route.abort();
  });
  if (before !== undefined) await context.addInitScript(before);
  context.on("weberror", (error) => complaints.push(String(error.error())));
  context.on("console", (message) => {
    const isBad = ["error", "warning"].includes(message.type()) && !expected?.test(message.text());
    if (isBad) complaints.push(`${message.type()}: ${message.text()}`);
  });
  try {
    const page = await context.newPage();
    await page.goto(url);
    await use(page);
    assert.deepEqual(complaints, []);
  } finally {
    await context.unrouteAll({ behavior: "ignoreErrors" });
    await context.close();
  }
}
