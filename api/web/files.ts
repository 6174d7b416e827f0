/**
 * The chat's files, as text in memory. They are imported as text, packages' files as well: Deno and Bun
 * both take the versions of deno.json and package.json, need no permission to read anything, and the
 * page asks nobody else for them.
 */
import { createHash } from "node:crypto";
import dompurify from "dompurify" with { type: "text" };
import highlight from "@highlightjs/cdn-assets/es/highlight.min.js" with { type: "text" };
import marked from "marked" with { type: "text" };
import announcerJs from "./page/announcer.js" with { type: "text" };
import appJs from "./page/app.js" with { type: "text" };
import branchesJs from "./page/branches.js" with { type: "text" };
import chatJs from "./page/chat.js" with { type: "text" };
import clientJs from "./page/client.js" with { type: "text" };
import codeJs from "./page/code.js" with { type: "text" };
import coloursCss from "./page/colours.css" with { type: "text" };
import composerCss from "./page/composer.css" with { type: "text" };
import composerJs from "./page/composer.js" with { type: "text" };
import controlsCss from "./page/controls.css" with { type: "text" };
import conversationFileJs from "./page/conversation_file.js" with { type: "text" };
import dialogsCss from "./page/dialogs.css" with { type: "text" };
import domJs from "./page/dom.js" with { type: "text" };
import drawerJs from "./page/drawer.js" with { type: "text" };
import earlyThemeJs from "./page/early_theme.js" with { type: "text" };
import headCss from "./page/head.css" with { type: "text" };
import headViewJs from "./page/head_view.js" with { type: "text" };
import iconSvg from "./page/icon.svg" with { type: "text" };
import indexHtml from "./page/index.html" with { type: "text" };
import libraryJs from "./page/library.js" with { type: "text" };
import markdownCss from "./page/markdown.css" with { type: "text" };
import markdownJs from "./page/markdown.js" with { type: "text" };
import messageViewJs from "./page/message_view.js" with { type: "text" };
import messagesCss from "./page/messages.css" with { type: "text" };
import narrowCss from "./page/narrow.css" with { type: "text" };
import noticesJs from "./page/notices.js" with { type: "text" };
import parametersJs from "./page/parameters.js" with { type: "text" };
import preferencesJs from "./page/preferences.js" with { type: "text" };
import sanitizeJs from "./page/sanitize.js" with { type: "text" };
import serverStatusJs from "./page/server_status.js" with { type: "text" };
import settingsViewJs from "./page/settings_view.js" with { type: "text" };
import shortcutsJs from "./page/shortcuts.js" with { type: "text" };
import sidebarCss from "./page/sidebar.css" with { type: "text" };
import sidebarViewJs from "./page/sidebar_view.js" with { type: "text" };
import sseJs from "./page/sse.js" with { type: "text" };
import statisticsJs from "./page/statistics.js" with { type: "text" };
import storeJs from "./page/store.js" with { type: "text" };
import themeJs from "./page/theme.js" with { type: "text" };
import threadViewJs from "./page/thread_view.js" with { type: "text" };

/** What a browser gets. */
export interface WebFile {
  /** Where it lies, below the page. */
  path: string;
  type: string;
  text: string;
  /** Of its content, quoted. */
  etag: string;
}

const SCRIPT = "text/javascript; charset=utf-8";

function file(path: string, type: string, text: string): WebFile {
  const digest = createHash("sha256").update(text).digest("base64url").slice(0, 27);
  return { path, type, text, etag: `"${digest}"` };
}

function style(name: string, text: string): WebFile {
  return file(`web/${name}`, "text/css; charset=utf-8", text);
}

/** Packages by the names that the page's modules import them by; a browser wants to know where they lie. */
const PACKAGES: Readonly<Record<string, string>> = {
  "@highlightjs/cdn-assets/es/highlight.min.js": "./vendor/highlight.js",
  "dompurify": "./vendor/purify.js",
  "marked": "./vendor/marked.js",
};

function script(name: string, text: string): WebFile {
  const resolved = text.replaceAll(
    /(?<=\b(?:from |import\())"([^".][^"]*)"/g,
    (specifier, name) => name in PACKAGES ? `"${PACKAGES[name]}"` : specifier,
  );
  return file(`web/${name}`, SCRIPT, resolved);
}

/** Packages name their source maps, which are not served. */
function vendor(name: string, text: string): WebFile {
  const withoutMap = text.replace(/^\/\/# sourceMappingURL=.*$/m, "");
  return file(`web/vendor/${name}`, SCRIPT, withoutMap);
}

/** The page itself is the one at "". */
export const WEB_FILES: readonly WebFile[] = [
  file("", "text/html; charset=utf-8", indexHtml),
  file("web/icon.svg", "image/svg+xml", iconSvg),
  style("colours.css", coloursCss),
  style("controls.css", controlsCss),
  style("sidebar.css", sidebarCss),
  style("head.css", headCss),
  style("messages.css", messagesCss),
  style("markdown.css", markdownCss),
  style("composer.css", composerCss),
  style("dialogs.css", dialogsCss),
  style("narrow.css", narrowCss),
  script("announcer.js", announcerJs),
  script("app.js", appJs),
  script("branches.js", branchesJs),
  script("chat.js", chatJs),
  script("client.js", clientJs),
  script("code.js", codeJs),
  script("composer.js", composerJs),
  script("conversation_file.js", conversationFileJs),
  script("dom.js", domJs),
  script("drawer.js", drawerJs),
  script("early_theme.js", earlyThemeJs),
  script("head_view.js", headViewJs),
  script("library.js", libraryJs),
  script("markdown.js", markdownJs),
  script("message_view.js", messageViewJs),
  script("notices.js", noticesJs),
  script("parameters.js", parametersJs),
  script("preferences.js", preferencesJs),
  script("sanitize.js", sanitizeJs),
  script("server_status.js", serverStatusJs),
  script("settings_view.js", settingsViewJs),
  script("shortcuts.js", shortcutsJs),
  script("sidebar_view.js", sidebarViewJs),
  script("sse.js", sseJs),
  script("statistics.js", statisticsJs),
  script("store.js", storeJs),
  script("theme.js", themeJs),
  script("thread_view.js", threadViewJs),
  vendor("highlight.js", highlight),
  vendor("marked.js", marked),
  vendor("purify.js", dompurify),
];
