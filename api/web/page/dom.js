/** Elements without markup: no text of a model or a user is ever parsed here. */

/**
 * @param {string} tag
 * @param {Record<string, unknown>} properties `on...` are listeners, `class` and others attributes;
 *   true is an attribute without a value, and false, null and undefined are none.
 * @param {...(Node | string | null)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) setProperty(made, name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function setProperty(made, name, value) {
  if (name.startsWith("on")) made.addEventListener(name.slice(2).toLowerCase(), value);
  else if (value === true) made.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
}

const SVG = "http://www.w3.org/2000/svg";

/** Strokes on a square of 24. */
const ICONS = {
  branchLeft: "M15 5l-7 7 7 7",
  branchRight: "M9 5l7 7-7 7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M12 5v14M6 13l6 6 6-6",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  edit: "M4 20l1-4.5L16 4.5l3.5 3.5L8.5 19zM13.5 7l3.5 3.5",
  help:
    "M9 9.2a3 3 0 1 1 4.4 2.7c-1 .5-1.4 1-1.4 2.1M12 17.5v.3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  play: "M7 5l11 7-11 7z",
  raw: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  retry: "M19 12a7 7 0 1 1-2-5M19 4v4.5h-4.5",
  send: "M12 19V5M6 11l6-6 6 6",
  settings: "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.5v5M8 14.5v5",
  stop: "M7 7h10v10H7z",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
  upload: "M12 16V5M7 9.5l5-5 5 5M5 20h14",
};

/** A picture that says nothing to screen readers: its button has a name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const stroke = document.createElementNS(SVG, "path");
  stroke.setAttribute("d", ICONS[name]);
  svg.append(stroke);
  return svg;
}

/** A button that shows only a picture. */
export function iconButton(name, label, onClick, properties = {}) {
  return element(
    "button",
    {
      type: "button",
      class: "icon-button",
      "aria-label": label,
      title: label,
      onClick,
      ...properties,
    },
    icon(name),
  );
}

/** Copies text, and shows on the button that it did. */
export async function copyWith(button, text, say) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Outside of https and localhost browsers have only the old way.
    if (!copyBySelection(text)) return say("The browser does not allow copying here");
  }
  say("Copied");
  const shown = button.querySelector("svg");
  const done = icon("check");
  shown.replaceWith(done);
  setTimeout(() => done.replaceWith(shown), 1500);
}

function copyBySelection(text) {
  const area = element("textarea", { class: "hidden-label", "aria-hidden": "true" });
  area.value = text;
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isCopied;
}

/** Lets the user save a text as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
