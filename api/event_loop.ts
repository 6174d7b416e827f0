/** How often the event loop is looked at; a hundred short timers a second cost nothing. */
const INTERVAL_MS = 10;

/** Measures how late timers fire: whatever blocks the event loop shows up here. */
export class LagMonitor {
  onLag: (ms: number) => void = () => {};
  readonly #timer: ReturnType<typeof setInterval>;
  #expectedMs = performance.now() + INTERVAL_MS;

  constructor() {
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS);
  }

  #look(): void {
    const now = performance.now();
    this.onLag(Math.max(0, now - this.#expectedMs));
    this.#expectedMs = now + INTERVAL_MS;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
