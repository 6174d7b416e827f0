/** What can be done with whole conversations: rename, delete, export, import. */
import { exportText, fileNameOf, importText } from "./conversation_file.js";
import { download } from "./dom.js";

const byId = (id) => document.getElementById(id);

export class Library {
  #chat;
  #store;
  #notices;
  #events;

  /**
   * @param {object} parts
   * @param {{kept: (id: string) => void, unsaved: (error: Error) => void}} events
   */
  constructor({ chat, store, notices }, events) {
    this.#chat = chat;
    this.#store = store;
    this.#notices = notices;
    this.#events = events;
  }

  export(conversations) {
    const [{ title }, ...others] = conversations;
    const name = others.length === 0 ? fileNameOf(title) : "conversations.json";
    download(name, exportText(conversations));
  }

  /** Asks for another title. */
  rename(conversation) {
    const dialog = byId("rename");
    const field = byId("rename-text");
    field.value = conversation.title;
    dialog.returnValue = "";
    dialog.showModal();
    field.select();
    dialog.onclose = async () => {
      const title = field.value.trim();
      if (dialog.returnValue !== "save" || title === "") return;
      const changed = this.#latest(conversation);
      changed.title = title;
      changed.headMs = Date.now();
      await this.#keep(changed);
    };
  }

  /** Can be undone as long as its notice is there. */
  async remove(conversation) {
    const { id, title } = conversation;
    const removed = this.#latest(conversation);
    this.#chat.forget(id);
    await this.#store.delete(id);
    if (this.#isShown(id)) this.#chat.startNew();
    this.#events.kept(id);
    this.#notices.show(`Deleted: ${title || "Untitled"}`, {
      action: { label: "Undo", run: () => this.#keep(removed) },
    });
  }

  /** @param {FileList} files */
  async import(files) {
    let count = 0;
    for (const file of files) {
      try {
        for (const conversation of importText(await file.text())) {
          await this.#store.save(conversation);
          this.#events.kept(conversation.id);
          count++;
        }
      } catch (error) {
        this.#notices.show(`${file.name}: ${error.message}`, { isFailure: true });
      }
    }
    if (count > 0) this.#notices.show(`Imported ${count} conversation${count === 1 ? "" : "s"}`);
    await this.#chat.reload();
  }

  async #keep(conversation) {
    try {
      await this.#store.save(conversation);
      this.#events.kept(conversation.id);
    } catch (error) {
      this.#events.unsaved(error);
    }
  }

  /** The list's copy may be older than what is shown. */
  #latest(conversation) {
    return this.#isShown(conversation.id) ? this.#chat.conversation : conversation;
  }

  #isShown(id) {
    return id === this.#chat.conversation.id;
  }
}
