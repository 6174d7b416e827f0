/** The messages of the shown path. It stays at its end as an answer grows, unless one scrolls away. */
import { pathOf, siblingsOf } from "./branches.js";
import { MessageView } from "./message_view.js";

/** Closer to the end than this counts as being there. */
const NEAR_END_PIXELS = 60;

export class ThreadView {
  #scroller;
  #list;
  #actions;
  /** @type {Map<string, MessageView>} */
  #views = new Map();
  #isAtEnd = true;

  /**
   * @param {{scroller: HTMLElement, list: HTMLElement, toEnd: HTMLElement}} parts
   * @param {import("./message_view.js").Actions} actions
   */
  constructor({ scroller, list, toEnd }, actions) {
    this.#scroller = scroller;
    this.#list = list;
    this.#actions = actions;
    scroller.addEventListener("scroll", () => {
      this.#isAtEnd = this.#pixelsBelow() < NEAR_END_PIXELS;
      toEnd.hidden = this.#isAtEnd;
    });
    toEnd.addEventListener("click", () => this.scrollToEnd());
    // Whatever makes it longer: text, colours, a wider window.
    new ResizeObserver(() => this.#isAtEnd && this.scrollToEnd()).observe(list);
  }

  /** @param {{conversation: object, growing: string | null}} state Id of the growing message. */
  show({ conversation, growing }) {
    const path = pathOf(conversation);
    const views = path.map((message) =>
      this.#views.get(message.id) ?? new MessageView(message, this.#actions)
    );
    this.#views = new Map(path.map(({ id }, index) => [id, views[index]]));
    path.forEach((message, index) =>
      views[index].update(message, {
        siblings: siblingsOf(conversation, message.id),
        isGrowing: message.id === growing,
        isBusy: growing !== null,
      })
    );
    this.#place(views.map(({ element }) => element));
  }

  /** Moves only what changed, so that focus and selection stay. */
  #place(elements) {
    elements.forEach((element, index) => {
      const old = this.#list.children[index];
      if (old !== element) this.#list.insertBefore(element, old ?? null);
    });
    while (this.#list.children.length > elements.length) this.#list.lastElementChild.remove();
  }

  scrollToEnd() {
    this.#isAtEnd = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Opens the last question for editing. */
  editLast() {
    const questions = [...this.#list.querySelectorAll(".message.user")];
    this.#views.get(questions.at(-1)?.dataset.id)?.edit();
  }

  #pixelsBelow() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }
}
