/** Markup to elements, by allow lists. The only place where text becomes markup. */
import purifier from "dompurify";

const TEXT = {
  ALLOWED_TAGS: (
    "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i kbd li mark ol p pre s strong sub sup " +
    "table tbody td th thead tr u ul"
  ).split(" "),
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  // These need not look like addresses.
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const COLOURS = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

/** Other classes could dress a model's text up as part of this page. Spans come with colours only. */
const HARMLESS_CLASS = { CODE: /^language-[\w+#.-]+$/, SPAN: /^(?:hljs-|language-)[\w .-]+$/ };

purifier.addHook("uponSanitizeAttribute", (node, attribute) => {
  if (attribute.attrName !== "class") return;
  attribute.keepAttr = HARMLESS_CLASS[node.nodeName]?.test(attribute.attrValue) ?? false;
});

purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** @returns {DocumentFragment} What is harmless in the markup of a model's text. */
export const textFragment = (markup) => purifier.sanitize(markup, TEXT);

/** @returns {DocumentFragment} Code in colours. */
export const colourFragment = (markup) => purifier.sanitize(markup, COLOURS);
