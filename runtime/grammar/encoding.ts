/** How code points become symbols of an automaton: themselves, bytes of UTF-8, or of JSON strings. */
import { MAX_CODE_POINT, type Range } from "./ranges.ts";

/** What an encoder adds to. */
export interface EdgeSink {
  addState(): number;
  addEdge(from: number, lo: number, hi: number, to: number): void;
}

/** Adds paths from a state to another for all code points of a range. */
export type Encoder = (sink: EdgeSink, range: Range, from: number, to: number) => void;

export const codePoints: Encoder = (sink, { lo, hi }, from, to) => sink.addEdge(from, lo, hi, to);

/** Code points whose UTF-8 has equally many bytes. Halves of surrogate pairs have none. */
const UTF8_LENGTHS: readonly Range[] = [
  { lo: 0, hi: 0x7f },
  { lo: 0x80, hi: 0x7ff },
  { lo: 0x800, hi: 0xd7ff },
  { lo: 0xe000, hi: 0xffff },
  { lo: 0x10000, hi: MAX_CODE_POINT },
];

export const utf8: Encoder = (sink, range, from, to) => {
  for (const same of UTF8_LENGTHS) {
    const lo = Math.max(range.lo, same.lo);
    const hi = Math.min(range.hi, same.hi);
    if (lo <= hi) addBytes(sink, bytesOf(lo), bytesOf(hi), from, to);
  }
};

const utf8Encoder = new TextEncoder();

function bytesOf(point: number): number[] {
  if (point < 0x80) return [point];
  return [...utf8Encoder.encode(String.fromCodePoint(point))];
}

/** All sequences from `low` to `high`, which are equally long and well-formed. */
function addBytes(
  sink: EdgeSink,
  low: readonly number[],
  high: readonly number[],
  from: number,
  to: number,
): void {
  if (low.length === 1) return sink.addEdge(from, low[0], high[0], to);
  const least = low.slice(1).fill(0x80);
  const most = low.slice(1).fill(0xbf);
  const add = (lo: number, hi: number, lowRest: number[], highRest: number[]) => {
    const middle = sink.addState();
    sink.addEdge(from, lo, hi, middle);
    addBytes(sink, lowRest, highRest, middle, to);
  };
  const lowRest = low.slice(1);
  const highRest = high.slice(1);
  let [[first], [last]] = [low, high];
  if (first === last) return add(first, first, lowRest, highRest);
  if (String(lowRest) !== String(least)) add(first, first++, lowRest, most);
  if (String(highRest) !== String(most)) add(last, last--, least, highRest);
  if (first <= last) add(first, last, least, most);
}

const LAST_CONTROL = 0x1f;

/** As `JSON.stringify` spells it inside of a string: one spelling for every character. */
export const jsonString: Encoder = (sink, range, from, to) => {
  const addPlain = (lo: number, hi: number) => {
    const clipped = { lo: Math.max(lo, range.lo), hi: Math.min(hi, range.hi) };
    if (clipped.lo <= clipped.hi) utf8(sink, clipped, from, to);
  };
  const escaped = [...Array(LAST_CONTROL + 1).keys(), QUOTE, BACKSLASH];
  for (const point of escaped) {
    if (range.lo <= point && point <= range.hi) addEscape(sink, point, from, to);
  }
  addPlain(LAST_CONTROL + 1, QUOTE - 1);
  addPlain(QUOTE + 1, BACKSLASH - 1);
  addPlain(BACKSLASH + 1, MAX_CODE_POINT);
};

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

function addEscape(sink: EdgeSink, point: number, from: number, to: number): void {
  const spelling = JSON.stringify(String.fromCodePoint(point)).slice(1, -1);
  const bytes = [...utf8Encoder.encode(spelling)];
  let state = from;
  for (const [i, byte] of bytes.entries()) {
    const next = i === bytes.length - 1 ? to : sink.addState();
    sink.addEdge(state, byte, byte, next);
    state = next;
  }
}
