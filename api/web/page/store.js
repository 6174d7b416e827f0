/**
 * Conversations, kept in this browser: in IndexedDB, else in localStorage, else only as long as the
 * page is open, which `lasts` then tells.
 */
import { merge } from "./branches.js";

const DATABASE = "trilith";
const CONVERSATIONS = "conversations";
const PREFIX = "trilith.conversation.";

/** @returns {Promise<IndexedDbStore | LocalStore | MemoryStore>} */
export async function openStore() {
  try {
    return new IndexedDbStore(await openDatabase());
  } catch {
    return localStorageWorks() ? new LocalStore() : new MemoryStore();
  }
}

function openDatabase() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(CONVERSATIONS, { keyPath: "id" });
  };
  return resultOf(request);
}

function resultOf(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("Another window holds the history"));
  });
}

function localStorageWorks() {
  try {
    localStorage.setItem(`${PREFIX}probe`, "");
    localStorage.removeItem(`${PREFIX}probe`);
    return true;
  } catch {
    return false;
  }
}

class IndexedDbStore {
  lasts = true;
  #database;

  constructor(database) {
    this.#database = database;
    // Lets a later version of the page in another window upgrade the database.
    database.onversionchange = () => database.close();
  }

  all() {
    return resultOf(this.#conversations("readonly").getAll());
  }

  get(id) {
    return resultOf(this.#conversations("readonly").get(id));
  }

  /** Reading and writing are one transaction, so that no other window's messages are lost. */
  save(conversation) {
    const conversations = this.#conversations("readwrite");
    const { transaction } = conversations;
    conversations.get(conversation.id).onsuccess = ({ target: { result } }) => {
      conversations.put(result === undefined ? conversation : merge(result, conversation));
    };
    return completionOf(transaction);
  }

  delete(id) {
    const conversations = this.#conversations("readwrite");
    conversations.delete(id);
    return completionOf(conversations.transaction);
  }

  #conversations(mode) {
    return this.#database.transaction(CONVERSATIONS, mode).objectStore(CONVERSATIONS);
  }
}

/** A request's success is not yet on disk: a full one makes the transaction fail. */
function completionOf(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () =>
      reject(transaction.error ?? new Error("The browser gave no reason"));
  });
}

/** The same by localStorage, whose writes are synchronous. Its methods are async as the others' are. */
class LocalStore {
  lasts = true;

  all() {
    return Promise.resolve(
      Object.keys(localStorage).filter((key) => key.startsWith(PREFIX))
        .map((key) => JSON.parse(localStorage.getItem(key))),
    );
  }

  get(id) {
    return Promise.resolve(JSON.parse(localStorage.getItem(PREFIX + id)) ?? undefined);
  }

  async save(conversation) {
    const stored = await this.get(conversation.id);
    const merged = stored === undefined ? conversation : merge(stored, conversation);
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(merged));
  }

  delete(id) {
    localStorage.removeItem(PREFIX + id);
    return Promise.resolve();
  }
}

class MemoryStore {
  lasts = false;
  #conversations = new Map();

  all() {
    return Promise.resolve([...this.#conversations.values()]);
  }

  get(id) {
    return Promise.resolve(this.#conversations.get(id));
  }

  save(conversation) {
    this.#conversations.set(conversation.id, structuredClone(conversation));
    return Promise.resolve();
  }

  delete(id) {
    this.#conversations.delete(id);
    return Promise.resolve();
  }
}
