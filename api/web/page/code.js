/** Blocks of code: a bar with the language and a copy button, and colours. */
import { copyWith, element, iconButton } from "./dom.js";
import { colourFragment } from "./sanitize.js";

/** Longer code stays plain: colouring it would hold up the page. */
const MOST_COLOURED_CHARACTERS = 50_000;

/**
 * @param {HTMLElement} code In its `pre`, in the document or not.
 * @param {boolean} isOpen More is to come: colours wait.
 * @param {(text: string) => void} say
 */
export function dressCode(code, isOpen, say) {
  const pre = code.parentElement;
  const language = /^language-(.+)$/.exec(code.className)?.[1] ?? "";
  const copy = iconButton("copy", "Copy code", () => copyWith(copy, code.textContent, say));
  const bar = element("div", { class: "code-bar" }, element("span", {}, language), copy);
  const frame = element("div", { class: "code-frame" }, bar);
  pre.replaceWith(frame);
  frame.append(pre);
  // What scrolls must be reachable by keyboard, and then have a name.
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language === "" ? "Code" : `Code, ${language}`);
  if (!isOpen && language !== "") colour(code, language);
}

/** The highlighter is large, so it is fetched when there is something to colour. */
async function colour(code, language) {
  const text = code.textContent;
  if (text.length > MOST_COLOURED_CHARACTERS) return;
  const { default: highlighter } = await import("@highlightjs/cdn-assets/es/highlight.min.js");
  if (highlighter.getLanguage(language) === undefined) return;
  const { value } = highlighter.highlight(text, { language, ignoreIllegals: true });
  code.replaceChildren(colourFragment(value));
}
