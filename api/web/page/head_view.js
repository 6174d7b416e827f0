/** What is above the messages: the title, the model, how full its context is, and a banner. */

const byId = (id) => document.getElementById(id);

/** From this share on, the gauge warns. */
const NEARLY_FULL = 0.85;

export function showTitle(title) {
  byId("title").textContent = title || "New chat";
  document.title = title ? `${title} · Trilith` : "Trilith";
}

/** @param {number | undefined} total Tokens that fit, if that is known. */
export function showGauge(used, total) {
  const gauge = byId("gauge");
  gauge.hidden = !(total > 0);
  if (gauge.hidden) return;
  gauge.setAttribute("aria-valuenow", String(used));
  gauge.setAttribute("aria-valuemax", String(total));
  gauge.setAttribute("aria-valuetext", `${used} of ${total} tokens`);
  gauge.title = `${used} of the ${total} tokens of the context are used`;
  gauge.classList.toggle("full", used > NEARLY_FULL * total);
  byId("gauge-text").textContent = `${used} / ${total}`;
  byId("gauge-fill").style.inlineSize = `${Math.min(100, (100 * used) / total)}%`;
}

/**
 * @param {import("./server_status.js").State} state
 * @param {{retry: () => void, enterKey: () => void}} actions
 */
export function showBanner({ kind, message }, actions) {
  const banner = bannerOf(kind, message, actions);
  byId("banner").hidden = banner === null;
  if (banner === null) return;
  byId("banner").classList.toggle("waits", banner.waits);
  byId("banner-text").textContent = banner.text;
  const button = byId("banner-action");
  button.hidden = banner.label === undefined;
  button.textContent = banner.label ?? "";
  button.onclick = banner.run ?? null;
}

function bannerOf(kind, message, { retry, enterKey }) {
  if (kind === "loading") return { text: message, waits: true };
  if (kind === "key") return { text: message, waits: false, label: "Enter the key", run: enterKey };
  if (kind === "gone") {
    return { text: `${message}. Trying again`, waits: true, label: "Try now", run: retry };
  }
  return null;
}
