/** What tests look at inside the page. They run in the browser, so that they are scripts of its own kind. */

export const activeId = () => document.activeElement?.id;

export const activeName = () => document.activeElement?.getAttribute("aria-label");

export const clipboardText = () => navigator.clipboard.readText();

export const paperColour = () => getComputedStyle(document.body).backgroundColor;

export const isWiderThanWindow = () => document.documentElement.scrollWidth > innerWidth;

export const scrollsSideways = (node) => node.scrollWidth > node.clientWidth;

export const scrollPosition = (node) => node.scrollTop;

export function scrollUp(node) {
  node.scrollTop -= 600;
}

export const isHacked = () => "isHacked" in globalThis;

export function withoutIndexedDb() {
  Object.defineProperty(globalThis, "indexedDB", { value: undefined });
}

/** What a model's text has become. */
export function contentsOf(message) {
  const nodes = [...message.querySelectorAll(".markdown *")];
  return {
    tags: [...new Set(nodes.map(({ localName }) => localName))],
    attributes: [...new Set(nodes.flatMap((node) => node.getAttributeNames()))],
    links: nodes.filter(({ localName }) => localName === "a")
      .map((link) => [link.textContent, link.getAttribute("href"), link.rel, link.target]),
  };
}

/** Keeps what screen readers are told; `announcements` gives it. */
export function listenToAnnouncements() {
  const said = [];
  const live = document.querySelector("#live");
  new MutationObserver(() => said.push(live.textContent)).observe(live, { childList: true });
  globalThis.announcements = said;
}

export const announcements = () => globalThis.announcements;

/** Contrast ratios of WCAG 2 between a text's colour and what it lies on. */
export function contrasts(pairs) {
  const probe = document.createElement("i");
  document.body.append(probe);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const luminance = (name) => {
    probe.style.color = `var(--${name})`;
    context.fillStyle = getComputedStyle(probe).color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data]
      .map((byte) => byte / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratios = pairs.map(([ink, paper]) => {
    const [lighter, darker] = [luminance(ink), luminance(paper)].sort((a, b) => b - a);
    return (lighter + 0.05) / (darker + 0.05);
  });
  probe.remove();
  return ratios;
}

/** Controls without a name that a screen reader could say, and ids that are there twice. */
export function unnamed() {
  const controls = document.querySelectorAll(
    "button:not([hidden]), input, textarea, select, [role=region]",
  );
  const nameless = [...controls].filter((node) => {
    const labels = [...node.labels ?? []].map((label) => label.textContent);
    const own = node.localName === "button" ? node.textContent : "";
    const texts = [node.getAttribute("aria-label"), ...labels, own];
    return !texts.some((text) => (text ?? "").trim() !== "");
  });
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  return [
    ...nameless.map((node) => node.outerHTML.slice(0, 100)),
    ...ids.filter((id, index) => ids.indexOf(id) !== index),
  ];
}

/** Does what a sanitiser that failed would let happen, and tells what the browser refused. */
export async function attack() {
  const refused = [];
  addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
    refused.push(effectiveDirective);
  });
  const script = document.createElement("script");
  script.append("globalThis.isHacked = true");
  const image = Object.assign(new Image(), { src: "https://example.org/pixel.png" });
  const style = document.createElement("style");
  style.append("body { display: none }");
  const base = Object.assign(document.createElement("base"), { href: "https://example.org/" });
  document.body.append(image, style, base);
  for (const act of [() => document.body.append(script), () => document.body.innerHTML = "<p>"]) {
    try {
      act();
    } catch (error) {
      refused.push(error.name);
    }
  }
  await fetch("https://example.org/").catch(() => {});
  await new Promise((resolve) => setTimeout(resolve));
  return [...new Set(refused)].sort();
}

export const alignments = (cells) => cells.map((cell) => cell.getAttribute("align"));

export const animationOf = (node) => getComputedStyle(node).animationName;
