/** The list of conversations, latest first, with a search over all of their text. */
import { matches } from "./branches.js";
import { element, iconButton } from "./dom.js";

export class SidebarView {
  #list;
  #empty;
  #search;
  #actions;
  #conversations = [];
  #currentId = "";

  /**
   * @param {{list: HTMLElement, empty: HTMLElement, search: HTMLInputElement}} parts
   * @param {{open: Function, rename: Function, exportOne: Function, remove: Function}} actions
   */
  constructor({ list, empty, search }, actions) {
    this.#list = list;
    this.#empty = empty;
    this.#search = search;
    this.#actions = actions;
    search.addEventListener("input", () => this.#render());
  }

  show(conversations, currentId) {
    this.#conversations = conversations;
    this.#currentId = currentId;
    this.#render();
  }

  #render() {
    const query = this.#search.value;
    const found = this.#conversations.filter((conversation) => matches(conversation, query))
      .sort((a, b) => b.updatedMs - a.updatedMs);
    const focused = this.#list.contains(document.activeElement)
      ? document.activeElement.dataset.focus
      : undefined;
    this.#list.replaceChildren(...found.map((conversation) => this.#item(conversation)));
    if (focused !== undefined) this.#list.querySelector(`[data-focus="${focused}"]`)?.focus();
    this.#empty.hidden = found.length > 0;
    this.#empty.textContent = query.trim() === "" ? "No conversations yet" : "Nothing found";
  }

  #item(conversation) {
    const { id } = conversation;
    const title = conversation.title || "Untitled";
    const button = (action, name, label) =>
      iconButton(name, `${label}: ${title}`, () => this.#actions[action](conversation), {
        "data-focus": `${action} ${id}`,
        title: label,
      });
    return element(
      "li",
      { class: "conversation" },
      element(
        "button",
        {
          type: "button",
          class: "conversation-title",
          title,
          "data-focus": `open ${id}`,
          "aria-current": id === this.#currentId ? "page" : null,
          onClick: () => this.#actions.open(id),
        },
        title,
      ),
      element(
        "div",
        { class: "conversation-actions" },
        button("rename", "edit", "Rename"),
        button("exportOne", "download", "Export"),
        button("remove", "trash", "Delete"),
      ),
    );
  }
}
