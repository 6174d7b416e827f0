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
  #stopString: string | null = null;

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
    return this.#stopString !== null;
  }

  /** The stop string that is complete, or null. */
  get stopString(): string | null {
    return this.#stopString;
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
    if (this.stopped) return { text: "", stopped: true };
    const pending = this.#held + decoded;
    const cut = this.#firstStop(pending);
    if (cut !== null) {
      this.#stopString = cut.stop;
      this.#held = "";
      return { text: pending.slice(0, cut.start), stopped: true };
    }
    const safe = pending.length - this.#heldLength(pending);
    this.#held = pending.slice(safe);
    return { text: pending.slice(0, safe), stopped: false };
  }

  /** The stop string that is the first to be complete, the longest of several; or null. */
  #firstStop(text: string): { stop: string; start: number } | null {
    const found = this.#stop
      .map((stop) => ({ stop, start: text.indexOf(stop) }))
      .filter(({ start }) => start >= 0)
      .sort((a, b) => a.start + a.stop.length - b.start - b.stop.length || a.start - b.start);
    return found[0] ?? null;
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
