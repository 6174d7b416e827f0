/**
 * A model's text as elements. It is not to be trusted: HTML in it is shown as text but for a few
 * harmless tags, images become links, and all that comes out is sanitised once more by an allow list.
 */
import { Marked } from "marked";
import { dressCode } from "./code.js";
import { element } from "./dom.js";
import { textFragment } from "./sanitize.js";

const HARMLESS_TAG = /^<\/?(?:br|sub|sup|kbd|b|i|u|s|mark)\s*\/?>$/i;

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character]);

const marked = new Marked({
  gfm: true,
  renderer: {
    html({ text, block }) {
      if (HARMLESS_TAG.test(text.trim())) return text;
      return block ? `<p>${escaped(text.trim()).replaceAll("\n", "<br>")}</p>` : escaped(text);
    },
    heading({ tokens, depth }) {
      // Below the page's own, of which there are two levels.
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

/** Markdown that grows: blocks that are the same as before keep their elements. */
export class MarkdownView {
  /** @type {{raw: string, isOpen: boolean, node: HTMLElement}[]} */
  #blocks = [];
  #say;

  /** @param {(text: string) => void} say Tells screen readers what was done. */
  constructor(say) {
    this.element = element("div", { class: "markdown" });
    this.#say = say;
  }

  /** @param {boolean} isOpen True while the text grows. */
  update(text, isOpen) {
    const tokens = blocksOf(text);
    // A link may be defined after the blocks that use it.
    const hasLinks = !isOpen && Object.keys(tokens.links).length > 0;
    const blocks = tokens.map((token, index) => {
      const grows = isOpen && index === tokens.length - 1;
      const before = hasLinks ? undefined : this.#blocks[index];
      return before?.raw === token.raw && before.isOpen === grows
        ? before
        : { raw: token.raw, isOpen: grows, node: this.#render(token, grows) };
    });
    this.#show(blocks);
  }

  #show(blocks) {
    blocks.forEach(({ node }, index) => {
      const old = this.#blocks[index]?.node;
      if (old === node) return;
      if (old === undefined) this.element.append(node);
      else old.replaceWith(node);
    });
    for (const { node } of this.#blocks.slice(blocks.length)) node.remove();
    this.#blocks = blocks;
  }

  #render(token, isOpen) {
    const node = element("div");
    node.append(fragmentOf(token));
    for (const table of node.querySelectorAll("table")) makeScrollable(table);
    for (const code of node.querySelectorAll("pre > code")) dressCode(code, isOpen, this.#say);
    return node;
  }
}

/** Nesting that is too deep for the parser is shown as it is. */
function blocksOf(text) {
  try {
    const tokens = marked.lexer(text);
    return Object.assign(tokens.filter(({ type }) => type !== "space"), { links: tokens.links });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return Object.assign([plain(text)], { links: {} });
  }
}

const plain = (text) => ({ type: "plain", raw: text });

function fragmentOf(token) {
  if (token.type === "plain") return element("p", { class: "plain" }, token.raw);
  try {
    return textFragment(marked.parser([token]));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return element("p", { class: "plain" }, token.raw);
  }
}

/** A wide table scrolls by itself, with the keyboard as well. */
function makeScrollable(table) {
  const frame = element("div", {
    class: "table-frame",
    role: "region",
    "aria-label": "Table",
    tabindex: "0",
  });
  table.replaceWith(frame);
  frame.append(table);
}
