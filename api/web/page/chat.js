/**
 * Conversations and the answers that grow in them, without a pixel. An answer goes on while another
 * conversation is shown.
 */
import { addMessage, ancestryOf, newConversation, pathOf, select } from "./branches.js";
import { requestFields } from "./parameters.js";
import { statisticsOf } from "./statistics.js";

/** A crash in the middle of an answer loses no more than this. */
const SAVE_MS = 2000;

export class Chat {
  /** @type {import("./branches.js").Conversation} The one that is shown. */
  conversation;
  /** @type {string | undefined} Name of the model that answers; the server's own without one. */
  model;
  /** @type {Map<string, {conversation: object, messageId: string, stop: AbortController}>} */
  #answers = new Map();
  #client;
  #store;
  #preferences;
  #events;

  /**
   * @param {object} parts
   * @param {object} events
   * @param {() => void} events.changed Something that is shown changed.
   * @param {(id: string) => void} events.kept A conversation was saved.
   * @param {() => void} events.listed Titles, order or number of conversations changed.
   * @param {(error: Error) => void} events.unsaved
   * @param {(error: Error) => void} events.failed
   * @param {(message: object) => void} events.began An answer that is shown.
   * @param {(message: object) => void} events.ended
   */
  constructor({ client, store, preferences }, events) {
    this.#client = client;
    this.#store = store;
    this.#preferences = preferences;
    this.#events = events;
    this.conversation = newConversation(preferences.system);
  }

  /** Id of the message that grows in what is shown, or null. */
  get growing() {
    return this.#answers.get(this.conversation.id)?.messageId ?? null;
  }

  startNew() {
    this.conversation = newConversation(this.#preferences.system);
    this.#events.changed();
  }

  /** @returns {Promise<boolean>} Whether it is there. */
  async open(id) {
    const conversation = this.#answers.get(id)?.conversation ?? await this.#store.get(id);
    if (conversation === undefined) return false;
    this.conversation = conversation;
    this.#events.changed();
    return true;
  }

  /** Takes over what another window saved. */
  async reload() {
    if (this.growing === null) await this.open(this.conversation.id);
  }

  send(text) {
    return this.#ask(pathOf(this.conversation).at(-1)?.id ?? null, text);
  }

  /** Asks something else in place of a question; the old one stays as a branch. */
  edit(question, text) {
    return this.#ask(question.parentId, text);
  }

  /** Another answer beside one; in place of it if it has no text. */
  regenerate(answer) {
    return this.#answer(
      this.conversation,
      answer.content === "" ? answer : emptyAnswer(this.conversation, answer.parentId),
    );
  }

  /** Goes on where an answer ended. */
  resume(answer) {
    return this.#answer(this.conversation, answer, true);
  }

  select(id) {
    select(this.conversation, id);
    this.#events.changed();
    return this.#save(this.conversation);
  }

  setSystem(system) {
    this.conversation.system = system;
    this.conversation.headMs = Date.now();
    const isEmpty = Object.keys(this.conversation.messages).length === 0;
    return isEmpty ? Promise.resolve() : this.#save(this.conversation);
  }

  /** Ends the answer that is shown; what there is of it stays. */
  stop() {
    this.#answers.get(this.conversation.id)?.stop.abort();
  }

  /** Ends whatever grows in a conversation that is deleted, so that it is not kept again. */
  forget(id) {
    this.#answers.get(id)?.stop.abort();
    this.#answers.delete(id);
  }

  #ask(parentId, content) {
    const { conversation } = this;
    const question = addMessage(conversation, { parentId, role: "user", content });
    return this.#answer(conversation, emptyAnswer(conversation, question.id));
  }

  async #answer(conversation, answer, isResumed = false) {
    if (this.#answers.has(conversation.id)) return;
    select(conversation, answer.id);
    delete answer.error;
    delete answer.finishReason;
    const running = { conversation, messageId: answer.id, stop: new AbortController() };
    this.#answers.set(conversation.id, running);
    this.#events.began(answer);
    this.#events.changed();
    await this.#save(conversation);
    const saving = setInterval(() => this.#keep(conversation), SAVE_MS);
    try {
      await this.#stream(conversation, answer, isResumed, running.stop.signal);
    } catch (error) {
      this.#fail(answer, error, running.stop.signal);
    }
    clearInterval(saving);
    answer.updatedMs = Date.now();
    conversation.updatedMs = answer.updatedMs;
    // Unless it was deleted meanwhile.
    if (this.#answers.get(conversation.id) === running) {
      this.#answers.delete(conversation.id);
      // What another window added meanwhile is in the store, and now is the time for it.
      if (await this.#save(conversation)) await this.#refresh(conversation);
    }
    this.#events.ended(answer);
    this.#events.changed();
  }

  async #stream(conversation, answer, isResumed, signal) {
    const clock = { startedMs: performance.now(), firstMs: null, lastMs: 0 };
    let usage, timings;
    for await (const chunk of this.#chunks(conversation, answer, isResumed, signal)) {
      const [choice] = chunk.choices ?? [];
      const text = choice?.delta?.content ?? choice?.text ?? "";
      if (text !== "") this.#grow(conversation, answer, text, clock);
      if (choice?.finish_reason) answer.finishReason = choice.finish_reason;
      usage = chunk.usage ?? usage;
      timings = chunk.timings ?? timings;
      answer.statistics = statisticsOf(usage, timings, clock);
    }
  }

  #grow(conversation, answer, text, clock) {
    clock.lastMs = performance.now();
    clock.firstMs ??= clock.lastMs;
    answer.content += text;
    answer.updatedMs = Date.now();
    if (conversation === this.conversation) this.#events.changed();
  }

  #chunks(conversation, answer, isResumed, signal) {
    const fields = {
      ...(this.model !== undefined && { model: this.model }),
      ...requestFields(this.#preferences.parameters),
    };
    const messages = messagesBefore(conversation, answer);
    return isResumed
      ? this.#client.resume(messages, answer.content, fields, signal)
      : this.#client.chat({ ...fields, messages }, signal);
  }

  #fail(answer, error, signal) {
    if (signal.aborted) {
      answer.finishReason = "stopped";
      return;
    }
    if (answer.content !== "") answer.finishReason = "error";
    answer.error = error.message;
    this.#events.failed(error);
  }

  /** @returns {Promise<boolean>} Whether it is kept. */
  async #save(conversation) {
    const isKept = await this.#keep(conversation);
    if (isKept) this.#events.listed();
    return isKept;
  }

  async #keep(conversation) {
    try {
      await this.#store.save(conversation);
      this.#events.kept(conversation.id);
      return true;
    } catch (error) {
      this.#events.unsaved(error);
      return false;
    }
  }

  async #refresh({ id }) {
    const stored = await this.#store.get(id);
    if (stored !== undefined && this.conversation.id === id) this.conversation = stored;
  }
}

function emptyAnswer(conversation, parentId) {
  return addMessage(conversation, { parentId, role: "assistant", content: "" });
}

/** What the model is told before it answers. */
function messagesBefore({ system, ...conversation }, answer) {
  const messages = ancestryOf(conversation, answer.id).slice(0, -1)
    .filter(({ role, content }) => role === "user" || content !== "")
    .map(({ role, content }) => ({ role, content }));
  return system.trim() === "" ? messages : [{ role: "system", content: system }, ...messages];
}
