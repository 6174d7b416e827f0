/**
 * Keys that work everywhere on the page, but not behind an open dialog.
 *
 * @param {{startNew: () => void, stop: () => void, search: () => void, help: () => void}} actions
 */
export function listenToShortcuts(actions) {
  addEventListener("keydown", (event) => {
    if (event.isComposing || document.querySelector("dialog[open]") !== null) return;
    const action = actionOf(event);
    if (action === null) return;
    // Escape also empties the search.
    if (action !== "stop") event.preventDefault();
    actions[action]();
  });
}

function actionOf({ key, ctrlKey, metaKey, shiftKey, altKey, target }) {
  const isCommand = (ctrlKey || metaKey) && !altKey;
  if (isCommand && shiftKey && key.toLowerCase() === "o") return "startNew";
  if (isCommand && !shiftKey && key.toLowerCase() === "k") return "search";
  if (key === "Escape") return "stop";
  return key === "?" && !isCommand && !target.matches?.("input, textarea, select") ? "help" : null;
}
