/**
 * Tells screen readers of an answer as it grows: whole sentences, some seconds apart, each once. Marking
 * the answer itself as live would read out every token.
 */
const PAUSE_MS = 3000;

export class Announcer {
  #region;
  #saidCharacters = 0;
  #text = "";
  #timer = null;

  /** @param {HTMLElement} region A live region that is not seen. */
  constructor(region) {
    this.#region = region;
  }

  say(text) {
    this.#region.textContent = text;
  }

  /** @param {string} text What there is already, and is not told again. */
  begin(text) {
    this.#saidCharacters = text.length;
    this.#text = text;
    this.say("Answering");
    this.#timer ??= setInterval(() => this.#sayNew(), PAUSE_MS);
  }

  update(text) {
    this.#text = text;
  }

  /** @param {string} outcome Such as "Answer complete". */
  end(outcome) {
    clearInterval(this.#timer);
    this.#timer = null;
    this.say(`${this.#text.slice(this.#saidCharacters)}\n${outcome}`);
  }

  #sayNew() {
    const fresh = this.#text.slice(this.#saidCharacters);
    const whole = /^[\s\S]*[.!?:\n](?=\s|$)/.exec(fresh)?.[0] ?? "";
    if (whole.trim() === "") return;
    this.#saidCharacters += whole.length;
    this.say(whole);
  }
}
