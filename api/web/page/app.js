/** Puts the page together. */
import { Announcer } from "./announcer.js";
import { pathOf, titleOf } from "./branches.js";
import { Chat } from "./chat.js";
import { Client } from "./client.js";
import { Composer } from "./composer.js";
import { icon } from "./dom.js";
import { isDrawerOpen, listenToDrawer, setDrawer } from "./drawer.js";
import { showBanner, showGauge, showTitle } from "./head_view.js";
import { Library } from "./library.js";
import { Notices } from "./notices.js";
import { serverDefaults } from "./parameters.js";
import { loadPreferences, onOtherWindow, savePreferences } from "./preferences.js";
import { ServerStatus } from "./server_status.js";
import { SettingsView } from "./settings_view.js";
import { listenToShortcuts } from "./shortcuts.js";
import { SidebarView } from "./sidebar_view.js";
import { contextUse } from "./statistics.js";
import { openStore } from "./store.js";
import { applyTheme, followSystem, otherTheme } from "./theme.js";
import { ThreadView } from "./thread_view.js";

const byId = (id) => document.getElementById(id);

const themeButton = byId("toggle-theme");
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
    rename: (conversation) => library.rename(conversation),
    exportOne: (conversation) => library.export([conversation]),
    remove: (conversation) => library.remove(conversation),
  },
);

const library = new Library({ chat, store, notices }, {
  kept: async (id) => {
    channel.postMessage(id);
    await list();
    show();
  },
  unsaved: showUnsaved,
});

const settings = new SettingsView(byId("settings"), preferences, (what) => {
  keepPreferences();
  if (what === "theme") applyTheme(preferences.theme, themeButton);
  if (what === "apiKey") keyTyped();
  if (what === "system" && pathOf(chat.conversation).length === 0) chat.startNew();
});

const status = new ServerStatus(client, () => {
  chat.model = status.models[0];
  byId("model").textContent = status.models[0] ?? "";
  if (status.props !== null) settings.showDefaults(serverDefaults(status.props));
  showBanner(status.state, {
    retry: () => status.check(),
    enterKey: () => settings.open("api-key"),
  });
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
  showTitle(conversation.title);
  const system = byId("system");
  if (document.activeElement !== system) system.value = conversation.system;
  byId("system-start").textContent = titleOf(conversation.system);
  showGauge(contextUse(path), status.props?.contextSize);
  if (path.length > 0) history.replaceState(null, "", `#${conversation.id}`);
  else if (location.hash !== "") history.replaceState(null, "", location.pathname);
}

/** Who types faster than the server says that it is there need not wait for it. */
function canAsk() {
  return ["ready", "checking"].includes(status.state.kind);
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
        run: () => library.export([chat.conversation]),
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

let keyTimer = null;
/** Asks the server again once typing pauses. */
function keyTyped() {
  clearTimeout(keyTimer);
  keyTimer = setTimeout(() => status.check(), 400);
}

// ---------------------------------------------------------------- page

function keepPreferences() {
  try {
    savePreferences(preferences);
  } catch (error) {
    showUnsaved(error);
  }
}

function setTheme(theme) {
  preferences.theme = theme;
  applyTheme(theme, themeButton);
  keepPreferences();
}

/** Takes over the settings that another window changed. */
function followPreferences(changed) {
  Object.assign(preferences, changed);
  applyTheme(preferences.theme, themeButton);
  keyTyped();
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
  themeButton.addEventListener("click", () => setTheme(otherTheme()));
  byId("system").addEventListener("change", async ({ target }) => {
    await chat.setSystem(target.value);
    show();
  });
  byId("export-all").addEventListener("click", () => {
    if (conversations.length > 0) library.export(conversations);
  });
  const files = byId("import-file");
  byId("import").addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    await library.import(files.files);
    files.value = "";
  });
  listenToDrawer();
  followSystem(themeButton);
  onOtherWindow(followPreferences);
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
applyTheme(preferences.theme, themeButton);
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
