/** Whether the server can answer, found out again and again until it can. */

const AGAIN_MS = 1500;

/**
 * @typedef {object} State
 * @property {"checking" | "loading" | "ready" | "key" | "gone"} kind
 * @property {string} message
 */

export class ServerStatus {
  /** @type {State} */
  state = { kind: "checking", message: "" };
  #client;
  #changed;
  #timer = null;

  /**
   * @param {import("./client.js").Client} client
   * @param {(status: ServerStatus) => void} changed
   */
  constructor(client, changed) {
    this.#client = client;
    this.#changed = changed;
    addEventListener("online", () => this.check());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.check();
    });
  }

  models = [];
  props = null;

  /** Asks now, and then until it is ready or waits for a person. */
  async check() {
    clearTimeout(this.#timer);
    this.state = await this.#ask();
    if (this.state.kind === "loading" || this.state.kind === "gone") {
      this.#timer = setTimeout(() => this.check(), AGAIN_MS);
    }
    this.#changed(this);
  }

  /** @returns {Promise<State>} */
  async #ask() {
    try {
      const stage = await this.#client.health();
      if (stage !== null) return { kind: "loading", message: stage };
      [this.models, this.props] = await Promise.all([this.#client.models(), this.#client.props()]);
      return { kind: "ready", message: "" };
    } catch (error) {
      if (error.status === 401) return { kind: "key", message: error.message };
      if (error.status === 503) return { kind: "loading", message: error.message };
      return { kind: "gone", message: error.message };
    }
  }
}
