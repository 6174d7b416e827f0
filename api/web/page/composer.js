/** The box that one types into, and the button that sends or stops. */
import { icon } from "./dom.js";

export class Composer {
  #area;
  #button;
  #actions;
  #isBusy = false;
  #isReady = false;

  /**
   * @param {{form: HTMLFormElement, area: HTMLTextAreaElement, button: HTMLButtonElement}} parts
   * @param {{send: (text: string) => void, stop: () => void, editLast: () => void}} actions
   */
  constructor({ form, area, button }, actions) {
    this.#area = area;
    this.#button = button;
    this.#actions = actions;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    area.addEventListener("keydown", (event) => this.#keyDown(event));
    area.addEventListener("input", () => this.#show());
    this.#show();
  }

  /** @param {{isBusy: boolean, isReady: boolean}} state Whether an answer grows; whether one can be had. */
  update({ isBusy, isReady }) {
    this.#isBusy = isBusy;
    this.#isReady = isReady;
    this.#show();
  }

  /** Not where it would open a keyboard over what is to be read. */
  focus() {
    if (!matchMedia("(hover: none)").matches) this.#area.focus();
  }

  #keyDown(event) {
    // Enter also ends the composition of, say, Japanese words.
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.#isBusy) this.#submit();
    } else if (event.key === "ArrowUp" && this.#area.value === "" && !this.#isBusy) {
      event.preventDefault();
      this.#actions.editLast();
    }
  }

  #submit() {
    if (this.#isBusy) return this.#actions.stop();
    const text = this.#area.value.trim();
    if (text === "" || !this.#isReady) return;
    this.#area.value = "";
    this.#show();
    this.#actions.send(text);
  }

  #show() {
    const label = this.#isBusy ? "Stop" : "Send";
    if (this.#button.title !== label) {
      this.#button.replaceChildren(icon(this.#isBusy ? "stop" : "send"));
      this.#button.setAttribute("aria-label", label);
      this.#button.title = label;
    }
    this.#button.disabled = !this.#isBusy && (!this.#isReady || this.#area.value.trim() === "");
    this.#area.style.height = "auto";
    this.#area.style.height = `${this.#area.scrollHeight}px`;
  }
}
