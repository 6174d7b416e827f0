/**
 * The README's pictures of the web chat: `deno run -A docs/screenshots.ts`. The story model answers,
 * with fixed seeds, so that they change only if the page or the model does.
 */
import process from "node:process";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { createApp } from "../api/app.ts";
import { ModelHost } from "../api/host.ts";
import { startServer } from "../api/server.ts";
import { DEFAULT_API_CONFIG } from "../api/services.ts";
import { loadModel } from "../runtime/mod.ts";
import { launch } from "../tests/browser.ts";
import { chromium } from "../tests/tools.ts";

const DESKTOP = { width: 1040, height: 680 };
const PHONE = { width: 360, height: 640 };

async function ask(page: Page, text: string): Promise<void> {
  await page.getByRole("textbox", { name: "Message", exact: true }).fill(text);
  await page.keyboard.press("Enter");
  await ended(page);
}

async function ended(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Send", exact: true }).waitFor();
}

async function set(page: Page, values: Record<string, string>): Promise<void> {
  await page.getByRole("button", { name: "Settings" }).click();
  for (const [label, value] of Object.entries(values)) {
    await page.getByLabel(label, { exact: true }).fill(value);
  }
  await page.keyboard.press("Escape");
}

/** Two conversations, the second with two answers. */
async function converse(page: Page): Promise<void> {
  await set(page, { Temperature: "0.5", Seed: "7" });
  await ask(page, "Tim had a red ball");
  await page.getByRole("button", { name: "New chat" }).click();
  await set(page, { Seed: "4" });
  await ask(page, "One day, a little fox found a shiny key");
  await set(page, { Seed: "2" });
  await page.getByRole("button", { name: "Answer again" }).click();
  await ended(page);
}

async function picture(
  browser: Browser,
  url: string,
  { name, ...options }: BrowserContextOptions & { name: string },
): Promise<void> {
  const context = await browser.newContext({ reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  await page.setViewportSize(DESKTOP);
  await page.goto(url);
  await converse(page);
  await page.setViewportSize(options.viewport!);
  await page.mouse.move(0, 0);
  await page.screenshot({ path: new URL(name, import.meta.url).pathname });
  await context.close();
}

async function main(): Promise<void> {
  const tool = chromium();
  if ("missing" in tool) throw new Error(`Cannot take pictures: ${tool.missing}`);
  const host = new ModelHost("story", () => loadModel());
  await using _model = await host.loaded;
  const observer = { firstToken: () => {}, tokens: () => {}, ended: () => {} };
  const app = createApp({ host, config: DEFAULT_API_CONFIG, observer });
  const server = await startServer({ host: "127.0.0.1", port: 0 }, app.fetch);
  const url = `http://127.0.0.1:${(server.place as { port: number }).port}/`;
  const browser = await launch(tool.command[0]);
  await picture(browser, url, { name: "chat_light.png", viewport: DESKTOP });
  await picture(browser, url, { name: "chat_dark.png", viewport: DESKTOP, colorScheme: "dark" });
  await picture(browser, url, {
    name: "chat_phone.png",
    viewport: PHONE,
    isMobile: true,
    hasTouch: true,
  });
  await browser.close();
  await server.stop();
}

if (import.meta.main) {
  await main();
  process.exit(0);
}
