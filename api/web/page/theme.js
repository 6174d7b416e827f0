/** Shows "light", "dark", or what the system has. */
export function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** The one that is not shown now. */
export function otherTheme() {
  const { theme } = document.documentElement.dataset;
  const isDark = theme === undefined
    ? matchMedia("(prefers-color-scheme: dark)").matches
    : theme === "dark";
  return isDark ? "light" : "dark";
}
