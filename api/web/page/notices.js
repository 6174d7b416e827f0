/** Short messages in a corner. Failures stay until they are closed. */
import { element, iconButton } from "./dom.js";

const SHOWN_MS = 8000;

export class Notices {
  #container;

  /** @param {HTMLElement} container A live region. */
  constructor(container) {
    this.#container = container;
  }

  /**
   * @param {string} text
   * @param {{isFailure?: boolean, action?: {label: string, run: () => void}}} options
   */
  show(text, { isFailure = false, action } = {}) {
    const close = () => notice.remove();
    const run = () => {
      close();
      action.run();
    };
    const notice = element(
      "div",
      { class: isFailure ? "notice failure" : "notice", role: isFailure ? "alert" : null },
      element("span", {}, text),
      action === undefined
        ? null
        : element("button", { type: "button", class: "text-button", onClick: run }, action.label),
      iconButton("close", "Close this message", close),
    );
    this.#container.append(notice);
    if (!isFailure) setTimeout(close, SHOWN_MS);
  }
}
