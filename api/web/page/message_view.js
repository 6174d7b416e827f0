/** One message with its buttons, branches and figures. */
import { copyWith, element, icon, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { statisticsTexts } from "./statistics.js";

/**
 * What a message's buttons do; each gets the message.
 *
 * @typedef {object} Actions
 * @property {(message: object, text: string) => void} edit
 * @property {(message: object) => void} regenerate
 * @property {(message: object) => void} resume
 * @property {(id: string) => void} select
 * @property {(text: string) => void} say
 */

export class MessageView {
  #actions;
  #message;
  #body;
  #markdown;
  #footer = element("div", { class: "message-footer" });
  #failure = element("div", { class: "failure-card", role: "alert", hidden: true });
  #isRaw = false;
  /** Where rendering is slow it is done less often. */
  #nextRenderMs = 0;
  #pending = null;
  #rendered = "";
  #shown = "";

  /**
   * @param {object} message
   * @param {Actions} actions
   */
  constructor(message, actions) {
    this.#message = message;
    this.#actions = actions;
    this.#markdown = new MarkdownView(actions.say);
    this.#body = element("div", { class: "message-body" });
    const speaker = message.role === "user" ? "You" : "Model";
    this.element = element(
      "li",
      { class: `message ${message.role}`, "data-id": message.id },
      element("h2", { class: "hidden-label" }, `${speaker} said`),
      this.#body,
      this.#failure,
      this.#footer,
    );
  }

  /**
   * @param {object} message
   * @param {{siblings: string[], isGrowing: boolean, isBusy: boolean}} state
   */
  update(message, state) {
    this.#message = message;
    this.element.setAttribute("aria-busy", String(state.isGrowing));
    this.element.classList.toggle("growing", state.isGrowing);
    this.#renderSoon(state.isGrowing);
    const shown = JSON.stringify([state, message.error, message.finishReason, message.statistics]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#showFailure(state);
    this.#showFooter(state);
  }

  /** Starts changing a question in place. */
  edit() {
    const area = element("textarea", {
      class: "edit-area",
      "aria-label": "Edit message",
      rows: "3",
    });
    area.value = this.#message.content;
    const close = () => {
      form.replaceWith(this.#body);
      this.#footer.hidden = false;
      this.#footer.querySelector("[data-action=edit]")?.focus();
    };
    const save = () => {
      const text = area.value.trim();
      if (text === "") return area.focus();
      form.replaceWith(this.#body);
      this.#footer.hidden = false;
      this.#actions.edit(this.#message, text);
    };
    const form = editForm(area, save, close);
    this.#body.replaceWith(form);
    this.#footer.hidden = true;
    area.focus();
  }

  #renderSoon(isGrowing) {
    if (!isGrowing) {
      clearTimeout(this.#pending);
      this.#pending = null;
      this.#render(false);
    } else {
      const waitMs = Math.max(0, this.#nextRenderMs - performance.now());
      this.#pending ??= setTimeout(() => {
        this.#pending = null;
        this.#render(true);
      }, waitMs);
    }
  }

  #render(isGrowing) {
    const startedMs = performance.now();
    const { content, role } = this.#message;
    const rendered = `${isGrowing} ${this.#isRaw} ${content}`;
    // Most messages stay as they are while one grows.
    if (rendered === this.#rendered) return;
    this.#rendered = rendered;
    if (role === "user" || this.#isRaw) {
      this.#body.replaceChildren(element("p", { class: "plain" }, content));
    } else {
      if (this.#markdown.element.parentElement !== this.#body) {
        this.#body.replaceChildren(this.#markdown.element);
      }
      this.#markdown.update(content, isGrowing);
    }
    const tookMs = performance.now() - startedMs;
    this.#nextRenderMs = performance.now() + Math.max(30, 4 * tookMs);
  }

  #showFailure({ isBusy }) {
    const { error, finishReason } = this.#message;
    this.#failure.hidden = error === undefined;
    if (error === undefined) return this.#failure.replaceChildren();
    const retry = element(
      "button",
      {
        type: "button",
        class: "text-button",
        disabled: isBusy,
        onClick: () => this.#actions.regenerate(this.#message),
      },
      icon("retry"),
      "Try again",
    );
    const what = finishReason === undefined ? "No answer" : "The answer broke off";
    this.#failure.replaceChildren(element("p", {}, `${what}: ${error}`), retry);
  }

  #showFooter(state) {
    const focused = this.#footer.contains(document.activeElement)
      ? document.activeElement.dataset.action
      : undefined;
    const actions = element("div", { class: "message-actions" }, ...this.#buttons(state));
    this.#footer.replaceChildren(
      ...[this.#branches(state), actions, this.#figures()].filter(Boolean),
    );
    if (focused !== undefined) this.#footer.querySelector(`[data-action=${focused}]`)?.focus();
  }

  #buttons({ isGrowing, isBusy }) {
    if (isGrowing) return [];
    const message = this.#message;
    const button = (action, name, label, run, more = {}) =>
      iconButton(name, label, run, { "data-action": action, ...more });
    const copy = button(
      "copy",
      "copy",
      "Copy message",
      () => copyWith(copy, this.#message.content, this.#actions.say),
    );
    if (message.role === "user") {
      return [
        copy,
        button("edit", "edit", "Edit message", () => this.edit(), { disabled: isBusy }),
      ];
    }
    const raw = button("raw", "raw", "Show as plain text", () => this.#toggleRaw(raw), {
      "aria-pressed": String(this.#isRaw),
    });
    const again = button(
      "regenerate",
      "retry",
      "Answer again",
      () => this.#actions.regenerate(this.#message),
      { disabled: isBusy },
    );
    const resume = button(
      "resume",
      "play",
      "Continue this answer",
      () => this.#actions.resume(this.#message),
      { disabled: isBusy },
    );
    // A failure without text has a button of its own.
    if (message.content === "") return message.error === undefined ? [again] : [];
    return [copy, raw, again, ...(message.finishReason === "stop" ? [] : [resume])];
  }

  #toggleRaw(button) {
    this.#isRaw = !this.#isRaw;
    button.setAttribute("aria-pressed", String(this.#isRaw));
    this.#render(false);
  }

  /** "2/3" between two arrows, where there are several versions. */
  #branches({ siblings, isBusy }) {
    if (siblings.length < 2) return null;
    const at = siblings.indexOf(this.#message.id);
    const arrow = (name, action, label, to) =>
      iconButton(name, label, () => this.#actions.select(siblings[to]), {
        disabled: isBusy || siblings[to] === undefined,
        "data-action": action,
      });
    return element(
      "div",
      { class: "branches", role: "group", "aria-label": "Versions of this message" },
      arrow("branchLeft", "previous", "Previous version", at - 1),
      element(
        "span",
        { "aria-label": `Version ${at + 1} of ${siblings.length}`, role: "img" },
        `${at + 1}/${siblings.length}`,
      ),
      arrow("branchRight", "next", "Next version", at + 1),
    );
  }

  #figures() {
    const { statistics, finishReason } = this.#message;
    if (statistics === undefined) return null;
    const texts = statisticsTexts(statistics);
    if (finishReason === "length") {
      texts.push({ text: "length limit", title: "The answer ended at its limit of tokens" });
    }
    return element(
      "ul",
      { class: "figures", "aria-label": "Statistics of this answer" },
      ...texts.map(({ text, title }) => element("li", { title }, text)),
    );
  }
}

function editForm(area, save, close) {
  const submit = (event) => {
    event.preventDefault();
    save();
  };
  const keyDown = (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
    if (event.key === "Enter" && !event.shiftKey) submit(event);
  };
  area.addEventListener("keydown", keyDown);
  return element(
    "form",
    { class: "edit-form", onSubmit: submit },
    area,
    element(
      "div",
      { class: "edit-buttons" },
      element("button", { type: "button", class: "text-button", onClick: close }, "Cancel"),
      element("button", { type: "submit", class: "main-button" }, "Send"),
    ),
  );
}
