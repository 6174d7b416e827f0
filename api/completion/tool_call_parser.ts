/** Finds calls of functions in a text that comes in pieces. */
import { randomId } from "./ids.ts";
import type { TextEvent } from "./types.ts";

/** How a model writes a call: what the grammar of tools lets through. */
export const CALL_START = "<tool_call>";
export const CALL_END = "</tool_call>";

/** `{"name": "f", "arguments": `, and something after it. */
const HEAD = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)/;

type State = "text" | "head" | "arguments" | "tail";

/**
 * `text <tool_call>{"name": ..., "arguments": {...}}</tool_call>` becomes text, calls, and their
 * arguments in fragments as they come. Space around calls is no text. A call whose head is broken off
 * or malformed is given out as text: nothing is lost.
 */
export class ToolCallParser {
  #state: State = "text";
  /** Not understood yet. */
  #pending = "";
  #calls = 0;
  readonly #json = new ObjectEnd();

  /** Calls that have begun. */
  get calls(): number {
    return this.#calls;
  }

  /** The last call is there with all its arguments. */
  get isWhole(): boolean {
    return this.#state !== "arguments";
  }

  push(text: string): TextEvent[] {
    this.#pending += text;
    const events: TextEvent[] = [];
    while (this.#advance(events));
    return events;
  }

  /** What was held back, when no more text comes. */
  flush(): TextEvent[] {
    const rest = this.#pending;
    this.#pending = "";
    if (this.#state === "head") return [{ kind: "text", text: CALL_START + rest }];
    const isText = rest !== "" && !this.#isSpaceAfterCall(rest);
    return this.#state === "text" && isText ? [{ kind: "text", text: rest }] : [];
  }

  /** @returns Whether there may be more to do in what is pending. */
  #advance(events: TextEvent[]): boolean {
    switch (this.#state) {
      case "text":
        return this.#readText(events);
      case "head":
        return this.#readHead(events);
      case "arguments":
        return this.#readArguments(events);
      case "tail":
        return this.#readTail();
    }
  }

  #readText(events: TextEvent[]): boolean {
    const at = this.#pending.indexOf(CALL_START);
    const end = at < 0 ? this.#pending.length - heldLength(this.#pending) : at;
    const text = at < 0 ? this.#pending.slice(0, end) : this.#pending.slice(0, end).trimEnd();
    if (text !== "" && !this.#isSpaceAfterCall(text)) events.push({ kind: "text", text });
    this.#pending = this.#pending.slice(at < 0 ? end : at + CALL_START.length);
    if (at >= 0) this.#state = "head";
    return at >= 0;
  }

  #isSpaceAfterCall(text: string): boolean {
    return this.#calls > 0 && text.trim() === "";
  }

  #readHead(events: TextEvent[]): boolean {
    const match = HEAD.exec(this.#pending);
    if (match === null) return this.#giveUpHead(events);
    const name: string = JSON.parse(match[1]);
    events.push({ kind: "call", call: this.#calls++, id: randomId("call_"), name });
    this.#pending = this.#pending.slice(match[0].length);
    this.#json.restart();
    this.#state = "arguments";
    return true;
  }

  /** A whole element without a head that we know is text. */
  #giveUpHead(events: TextEvent[]): boolean {
    const end = this.#pending.indexOf(CALL_END);
    if (end < 0) return false;
    const length = end + CALL_END.length;
    events.push({ kind: "text", text: CALL_START + this.#pending.slice(0, length) });
    this.#pending = this.#pending.slice(length);
    this.#state = "text";
    return true;
  }

  #readArguments(events: TextEvent[]): boolean {
    const length = this.#json.lengthIn(this.#pending);
    const text = this.#pending.slice(0, length);
    if (text !== "") events.push({ kind: "arguments", call: this.#calls - 1, text });
    this.#pending = this.#pending.slice(length);
    if (!this.#json.isOver) return false;
    this.#state = "tail";
    return true;
  }

  #readTail(): boolean {
    const end = this.#pending.indexOf(CALL_END);
    if (end < 0) return false;
    this.#pending = this.#pending.slice(end + CALL_END.length);
    this.#state = "text";
    return true;
  }
}

/** Characters at the end that may be space before a call, or the beginning of one. */
function heldLength(text: string): number {
  for (let length = CALL_START.length - 1; length > 0; length--) {
    if (!text.endsWith(CALL_START.slice(0, length))) continue;
    const before = text.slice(0, text.length - length);
    return text.length - before.trimEnd().length;
  }
  return text.length - text.trimEnd().length;
}

/** Finds where a JSON object ends that comes in pieces. */
class ObjectEnd {
  #depth = 0;
  #inString = false;
  #isEscaped = false;
  isOver = false;

  restart(): void {
    this.#depth = 0;
    this.#inString = this.#isEscaped = this.isOver = false;
  }

  /** How many characters of `text` belong to the object; all, unless it ends there. */
  lengthIn(text: string): number {
    for (let i = 0; i < text.length; i++) {
      this.#read(text[i]);
      if (this.isOver) return i + 1;
    }
    return text.length;
  }

  #read(char: string): void {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (this.#inString && char === "\\") this.#isEscaped = true;
    else if (char === '"') this.#inString = !this.#inString;
    else if (this.#inString) return;
    else if (char === "{" || char === "[") this.#depth++;
    else if (char === "}" || char === "]") this.isOver = --this.#depth <= 0;
  }
}
