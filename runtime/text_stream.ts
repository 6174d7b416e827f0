/**
 * Turns generated tokens into pieces of text that are safe to show: whole characters only, and
 * nothing that may yet turn out to be the beginning of a stop string.
 */
import type { StreamingTokenizer } from "./tokenizer.ts";
import type { Tokenizer } from "./types.ts";

export interface TextStreamOptions {
  /** Strings that end the text; they are not part of it. */
  stop?: readonly string[];
  /** Default true. */
  skipSpecialTokens?: boolean;
}

export interface PushResult {
  /** New text, possibly none. */
  text: string;
  /** A stop string is complete: there is no more text. */
  stopped: boolean;
}

/** Decodes tokens as they come. */
interface DecodeStream {
  push(id: number): string;
  flush(): string;
}

/**
 * The pieces together are `tokenizer.decode(ids)`, cut where the first stop string to be complete
 * begins, however the text was cut into tokens.
 */
export class TextStream {
  readonly #decoder: DecodeStream;
  readonly #stop: readonly string[];
  /** Decoded, but not given out yet. Never as long as the longest stop string. */
  #held = "";
  #stopped = false;

  /** @throws {RangeError} If a stop string is empty. */
  constructor(
    tokenizer: Tokenizer,
    { stop = [], skipSpecialTokens = true }: TextStreamOptions = {},
  ) {
    if (stop.includes("")) {
      throw new RangeError("Cannot stop at an empty string: leave it out");
    }
    this.#stop = stop;
    this.#decoder = streamOf(tokenizer, skipSpecialTokens);
  }

  /** True once a stop string is complete. */
  get stopped(): boolean {
    return this.#stopped;
  }

  push(id: number): PushResult {
    return this.#add(this.#decoder.push(id));
  }

  /** What was held back, when no more tokens come. Empty after a stop string. */
  flush(): string {
    const { text } = this.#add(this.#decoder.flush());
    const rest = this.#held;
    this.#held = "";
    return text + rest;
  }

  #add(decoded: string): PushResult {
    if (this.#stopped) return { text: "", stopped: true };
    const pending = this.#held + decoded;
    const cut = this.#stopStart(pending);
    if (cut !== null) {
      this.#stopped = true;
      this.#held = "";
      return { text: pending.slice(0, cut), stopped: true };
    }
    const safe = pending.length - this.#heldLength(pending);
    this.#held = pending.slice(safe);
    return { text: pending.slice(0, safe), stopped: false };
  }

  /** Where the stop string begins that is the first to be complete, or null. */
  #stopStart(text: string): number | null {
    let start: number | null = null;
    let end = Infinity;
    for (const stop of this.#stop) {
      const at = text.indexOf(stop);
      const isFirst = at + stop.length < end || (at + stop.length === end && at < start!);
      if (at >= 0 && isFirst) {
        start = at;
        end = at + stop.length;
      }
    }
    return start;
  }

  /** Length of the longest end of `text` that some stop string begins with. */
  #heldLength(text: string): number {
    return Math.max(0, ...this.#stop.map((stop) => beginningLength(text, stop)));
  }
}

function beginningLength(text: string, stop: string): number {
  const most = Math.min(text.length, stop.length - 1);
  for (let length = most; length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}

function streamOf(tokenizer: Tokenizer, skipSpecialTokens: boolean): DecodeStream {
  if (isStreaming(tokenizer)) return tokenizer.decodeStream({ skipSpecialTokens });
  // Other tokenizers: their tokens are bytes of one UTF-8 text.
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const isSkipped = (id: number) => skipSpecialTokens && tokenizer.isSpecial(id);
  return {
    push: (id) => isSkipped(id) ? "" : utf8.decode(tokenizer.tokenBytes(id), { stream: true }),
    flush: () => utf8.decode(),
  };
}

function isStreaming(tokenizer: Tokenizer): tokenizer is StreamingTokenizer {
  return "decodeStream" in tokenizer;
}
