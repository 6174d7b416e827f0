/** Puts the page together. */
import { Announcer } from "./announcer.js";
import { pathOf, titleOf } from "./branches.js";
import { Chat } from "./chat.js";
import { Client } from "./client.js";
import { Composer } from "./composer.js";
import { exportText, fileNameOf, importText } from "./conversation_file.js";
import { download, icon } from "./dom.js";
import { Notices } from "./notices.js";
import { serverDefaults } from "./parameters.js";
import { loadPreferences, savePreferences } from "./preferences.js";
import { ServerStatus } from "./server_status.js";
import { SettingsView } from "./settings_view.js";
import { listenToShortcuts } from "./shortcuts.js";
import { SidebarView } from "./sidebar_view.js";
import { contextUse } from "./statistics.js";
import { openStore } from "./store.js";
import { applyTheme, otherTheme } from "./theme.js";
import { ThreadView } from "./thread_view.js";

const byId = (id) => document.getElementById(id);

const notices = new Notices(byId("notices"));
const announcer = new Announcer(byId("live"));
const say = (text) => announcer.say(text);
const preferences = loadPreferences();
const client = new Client(() => preferences.apiKey);
const store = await openStore();
/** Tells other windows what was saved here. */
const channel = new BroadcastChannel("trilith");

let conversations = [];
let isUnsavedShown = false;

// ---------------------------------------------------------------- parts

const chat = new Chat({ client, store, preferences }, {
  changed: () => show(),
  kept: (id) => {
    channel.postMessage(id);
    isUnsavedShown = false;
  },
  listed: () => list(),
  unsaved: (error) => showUnsaved(error),
  failed: () => status.check(),
  began: (answer) => {
    announcer.begin(answer.content);
    showNow();
    thread.scrollToEnd();
  },
  ended: (answer) => {
    announcer.update(answer.content);
    if (answer.error !== undefined) say("The answer failed");
    else announcer.end(answer.finishReason === "stopped" ? "Stopped" : "Answer complete");
  },
});

const thread = new ThreadView(
  { scroller: byId("scroller"), list: byId("messages"), toEnd: byId("to-end") },
  {
    edit: (question, text) => {
      chat.edit(question, text);
      composer.focus();
    },
    regenerate: (answer) => {
      chat.regenerate(answer);
      composer.focus();
    },
    resume: (answer) => {
      chat.resume(answer);
      composer.focus();
    },
    select: (id) => chat.select(id),
    say,
  },
);

const composer = new Composer(
  { form: byId("composer"), area: byId("question"), button: byId("send") },
  {
    send: (text) => chat.send(text),
    stop: () => {
      chat.stop();
      composer.focus();
    },
    editLast: () => thread.editLast(),
  },
);

const sidebar = new SidebarView(
  { list: byId("conversations"), empty: byId("no-conversations"), search: byId("search") },
  {
    open: async (id) => {
      if (!await chat.open(id)) notices.show("This conversation is no longer there");
      await list();
      setDrawer(false);
      thread.scrollToEnd();
      composer.focus();
    },
    rename,
    exportOne: (conversation) =>
      download(fileNameOf(conversation.title), exportText([conversation])),
    remove,
  },
);

const settings = new SettingsView(byId("settings"), preferences, (what) => {
  try {
    savePreferences(preferences);
  } catch (error) {
    showUnsaved(error);
  }
  if (what === "theme") applyTheme(preferences.theme);
  if (what === "apiKey") keyTyped();
  if (what === "system" && pathOf(chat.conversation).length === 0) chat.startNew();
});

const status = new ServerStatus(client, () => {
  chat.model = status.models[0];
  byId("model").textContent = status.models[0] ?? "";
  if (status.props !== null) settings.showDefaults(serverDefaults(status.props));
  showBanner();
  show();
});

// ---------------------------------------------------------------- showing

/** At most once a frame, however fast tokens come. */
let isShowing = false;
function show() {
  if (isShowing) return;
  isShowing = true;
  // A timer, as frames stop in windows that are not seen.
  setTimeout(() => {
    isShowing = false;
    showNow();
  }, 16);
}

function showNow() {
  const { conversation, growing } = chat;
  thread.show({ conversation, growing });
  composer.update({ isBusy: growing !== null, isReady: canAsk() });
  if (growing !== null) announcer.update(conversation.messages[growing].content);
  const path = pathOf(conversation);
  byId("welcome").hidden = path.length > 0;
  byId("title").textContent = conversation.title || "New chat";
  document.title = conversation.title ? `${conversation.title} · Trilith` : "Trilith";
  const system = byId("system");
  if (document.activeElement !== system) system.value = conversation.system;
  byId("system-start").textContent = titleOf(conversation.system);
  showGauge(contextUse(path));
  if (path.length > 0) history.replaceState(null, "", `#${conversation.id}`);
  else if (location.hash !== "") history.replaceState(null, "", location.pathname);
}

/** Who types faster than the server says that it is there need not wait for it. */
function canAsk() {
  return ["ready", "checking"].includes(status.state.kind);
}

function showGauge(used) {
  const total = status.props?.contextSize;
  const gauge = byId("gauge");
  gauge.hidden = !(total > 0);
  if (gauge.hidden) return;
  const text = `${used} / ${total}`;
  gauge.setAttribute("aria-valuenow", String(used));
  gauge.setAttribute("aria-valuemax", String(total));
  gauge.setAttribute("aria-valuetext", `${used} of ${total} tokens`);
  gauge.title = `${used} of the ${total} tokens of the context are used`;
  gauge.classList.toggle("full", used > 0.85 * total);
  byId("gauge-text").textContent = text;
  byId("gauge-fill").style.inlineSize = `${Math.min(100, (100 * used) / total)}%`;
}

const BANNERS = {
  loading: (message) => ({ text: message, waits: true }),
  gone: (message) => ({
    text: `${message}. Trying again`,
    waits: true,
    action: { label: "Try now", run: () => status.check() },
  }),
  key: (message) => ({
    text: message,
    action: { label: "Enter the key", run: () => settings.open("api-key") },
  }),
};

function showBanner() {
  const { kind, message } = status.state;
  const banner = BANNERS[kind]?.(message);
  byId("banner").hidden = banner === undefined;
  if (banner === undefined) return;
  byId("banner").classList.toggle("waits", banner.waits === true);
  byId("banner-text").textContent = banner.text;
  const button = byId("banner-action");
  button.hidden = banner.action === undefined;
  button.textContent = banner.action?.label ?? "";
  button.onclick = banner.action?.run ?? null;
}

function showUnsaved({ name, message }) {
  if (isUnsavedShown) return;
  isUnsavedShown = true;
  const reason = name === "QuotaExceededError" ? "its storage is full" : message;
  notices.show(
    `This browser can't keep the conversation: ${reason}. Export it, or delete old ones.`,
    {
      isFailure: true,
      action: {
        label: "Export",
        run: () => download(fileNameOf(chat.conversation.title), exportText([chat.conversation])),
      },
    },
  );
}

async function list() {
  conversations = await store.all();
  sidebar.show(conversations, chat.conversation.id);
}

// ---------------------------------------------------------------- actions

async function startNew() {
  chat.startNew();
  setDrawer(false);
  await list();
  composer.focus();
}

function rename(conversation) {
  const dialog = byId("rename");
  const field = byId("rename-text");
  field.value = conversation.title;
  dialog.returnValue = "";
  dialog.showModal();
  field.select();
  dialog.onclose = async () => {
    const title = field.value.trim();
    if (dialog.returnValue !== "save" || title === "") return;
    const isShown = conversation.id === chat.conversation.id;
    const changed = isShown ? chat.conversation : conversation;
    changed.title = title;
    changed.headMs = Date.now();
    await keep(changed);
  };
}

async function remove(conversation) {
  chat.forget(conversation.id);
  const isShown = conversation.id === chat.conversation.id;
  const kept = isShown ? chat.conversation : conversation;
  await store.delete(conversation.id);
  channel.postMessage(conversation.id);
  if (isShown) chat.startNew();
  await list();
  notices.show(`Deleted: ${conversation.title || "Untitled"}`, {
    action: { label: "Undo", run: () => keep(kept) },
  });
}

async function keep(conversation) {
  try {
    await store.save(conversation);
  } catch (error) {
    showUnsaved(error);
  }
  channel.postMessage(conversation.id);
  await list();
  show();
}

async function importFiles(files) {
  let count = 0;
  for (const file of files) {
    try {
      for (const conversation of importText(await file.text())) {
        await store.save(conversation);
        count++;
      }
    } catch (error) {
      notices.show(`${file.name}: ${error.message}`, { isFailure: true });
    }
  }
  if (count > 0) notices.show(`Imported ${count} conversation${count === 1 ? "" : "s"}`);
  await chat.reload();
  await list();
}

let keyTimer = null;
/** Asks the server again once typing pauses. */
function keyTyped() {
  clearTimeout(keyTimer);
  keyTimer = setTimeout(() => status.check(), 400);
}

// ---------------------------------------------------------------- page

const menu = byId("menu");
/** As in the style sheet: there the list of conversations is a drawer. */
const isNarrow = matchMedia("(max-width: 48rem)");

function setDrawer(isOpen) {
  const isShown = isOpen && isNarrow.matches;
  const wasShown = isDrawerOpen();
  document.body.classList.toggle("drawer", isShown);
  document.querySelector("main").inert = isShown;
  menu.setAttribute("aria-expanded", String(isShown));
  if (isShown) byId("search").focus();
  else if (wasShown) menu.focus();
}

const isDrawerOpen = () => document.body.classList.contains("drawer");

function setTheme(theme) {
  preferences.theme = theme;
  applyTheme(theme);
  try {
    savePreferences(preferences);
  } catch (error) {
    showUnsaved(error);
  }
  showThemeButton();
}

function showThemeButton() {
  const label = `Use ${otherTheme()} colours`;
  byId("toggle-theme").setAttribute("aria-label", label);
  byId("toggle-theme").title = label;
}

function addIcons() {
  const icons = {
    menu: "menu",
    "toggle-theme": "theme",
    "open-help": "help",
    "open-settings": "settings",
    "to-end": "down",
  };
  for (const [id, name] of Object.entries(icons)) byId(id).append(icon(name));
  for (const button of document.querySelectorAll(".close")) button.append(icon("close"));
  byId("new-chat").prepend(icon("plus"));
  byId("import").prepend(icon("upload"));
  byId("export-all").prepend(icon("download"));
}

function listen() {
  byId("new-chat").addEventListener("click", startNew);
  byId("open-settings").addEventListener("click", () => settings.open());
  byId("open-help").addEventListener("click", () => byId("help").showModal());
  byId("toggle-theme").addEventListener("click", () => setTheme(otherTheme()));
  menu.addEventListener("click", () => setDrawer(!isDrawerOpen()));
  byId("shade").addEventListener("click", () => setDrawer(false));
  byId("system").addEventListener("change", async ({ target }) => {
    await chat.setSystem(target.value);
    show();
  });
  byId("export-all").addEventListener(
    "click",
    () => download("conversations.json", exportText(conversations)),
  );
  const files = byId("import-file");
  byId("import").addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    await importFiles(files.files);
    files.value = "";
  });
  isNarrow.addEventListener("change", () => setDrawer(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showThemeButton);
  channel.addEventListener("message", async ({ data: id }) => {
    await list();
    if (id === chat.conversation.id) await chat.reload();
  });
  addEventListener("hashchange", async () => {
    if (await chat.open(location.hash.slice(1))) await list();
  });
  listenToShortcuts({
    startNew,
    stop: () => {
      if (isDrawerOpen()) setDrawer(false);
      else chat.stop();
    },
    search: () => {
      setDrawer(true);
      byId("search").focus();
      byId("search").select();
    },
    help: () => byId("help").showModal(),
  });
}

addIcons();
applyTheme(preferences.theme);
showThemeButton();
listen();
if (!store.lasts) {
  notices.show("This browser keeps no data here: conversations end with this page", {
    isFailure: true,
  });
}
if (location.hash !== "") await chat.open(location.hash.slice(1));
await list();
showNow();
await status.check();
