/** Settings, kept in this browser only. The API key is one of them, and is sent to this server only. */

const KEY = "trilith.preferences";

/**
 * @typedef {object} Preferences
 * @property {"system" | "light" | "dark"} theme
 * @property {string} apiKey
 * @property {string} system System prompt of new conversations.
 * @property {Record<string, string>} parameters As they were typed.
 */

const DEFAULTS = { theme: "system", apiKey: "", system: "", parameters: {} };

/** @returns {Preferences} */
export function loadPreferences() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { ...structuredClone(DEFAULTS), ...stored };
  } catch {
    return structuredClone(DEFAULTS);
  }
}

/** @throws {DOMException} If the browser does not keep them. */
export function savePreferences(preferences) {
  localStorage.setItem(KEY, JSON.stringify(preferences));
}

/** @param {(preferences: Preferences) => void} changed Hears of what another window saved. */
export function onOtherWindow(changed) {
  addEventListener("storage", ({ key }) => {
    if (key === KEY) changed(loadPreferences());
  });
}
