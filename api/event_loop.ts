import fs from "node:fs";
import { readTextIfAllowed } from "../kernels/permissions.ts";

/** How often the event loop is looked at; a hundred short timers a second cost nothing. */
const INTERVAL_MS = 10;

/** Linux tells here how many nanoseconds a thread has run, however long it waited for a CPU. */
const OWN_TIME_FILE = "/proc/thread-self/schedstat";

/** How late a timer fired. */
export interface Look {
  /** Milliseconds that the timer was late: whatever keeps the event loop from turning shows up here. */
  lagMs: number;
  /**
   * Of these, what this thread itself may have worked at: other threads and programs on the same
   * CPUs are left out. Null where the system does not tell.
   */
  ownMs: number | null;
}

/** Measures how late timers fire. */
export class LagMonitor {
  /** Called for each timer. */
  onLook: (look: Look) => void = () => {};
  readonly #timer: ReturnType<typeof setInterval>;
  #expectedMs = performance.now() + INTERVAL_MS;
  /** Null where it can't be read; that is asked once, as permissions take longer than reading. */
  #ranMs = readTextIfAllowed(OWN_TIME_FILE) === null ? null : threadMs();

  constructor() {
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS);
  }

  #look(): void {
    const now = performance.now();
    const lagMs = Math.max(0, now - this.#expectedMs);
    this.#expectedMs = now + INTERVAL_MS;
    const ranMs = this.#ranMs === null ? null : threadMs();
    const ownMs = ranMs === null ? null : Math.min(lagMs, ranMs - this.#ranMs!);
    this.#ranMs = ranMs;
    this.onLook({ lagMs, ownMs });
  }

  /** Looks no more. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function threadMs(): number {
  const [nanoseconds] = fs.readFileSync(OWN_TIME_FILE, "utf8").split(" ");
  return Number(nanoseconds) / 1e6;
}
