/** Light and dark colours. */

const SYSTEM = matchMedia("(prefers-color-scheme: dark)");

/**
 * Shows "light", "dark", or what the system has.
 *
 * @param {HTMLButtonElement} button The one that changes to the other.
 */
export function applyTheme(theme, button) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  showOther(button);
}

/** Keeps the button's name right as the system changes. */
export function followSystem(button) {
  SYSTEM.addEventListener("change", () => showOther(button));
}

/** The one that is not shown now. */
export function otherTheme() {
  const { theme } = document.documentElement.dataset;
  const isDark = theme === undefined ? SYSTEM.matches : theme === "dark";
  return isDark ? "light" : "dark";
}

function showOther(button) {
  button.title = `Use ${otherTheme()} colours`;
  button.setAttribute("aria-label", button.title);
}
