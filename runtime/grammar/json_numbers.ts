/**
 * Numbers of JSON within bounds, exactly: digit by digit against the bounds' own digits.
 *
 * Numbers with bounds have at most 15 significant digits, so that different texts are different
 * doubles: what is beyond a bound as a text is so as a double. Numbers without bounds may have more.
 * All have a largest length, as a model could add digits for ever.
 */
import {
  type Arc,
  choice,
  type Expression,
  optional,
  repeat,
  sequence,
  set,
} from "./expression.ts";
import { pairs } from "./ranges.ts";
import { GrammarError } from "./types.ts";

export interface NumberBounds {
  isInteger: boolean;
  /** Null: none. */
  min: Bound | null;
  max: Bound | null;
  /** 1, or more for integers only. */
  multipleOf: number;
}

export interface Bound {
  value: number;
  isExclusive: boolean;
}

const DIGIT = set(pairs("09"));
const NONZERO = set(pairs("19"));
/** Of numbers without bounds: 64-bit integers, and doubles as JavaScript prints them. */
const MAX_DIGITS = 19;
const WHOLE = choice("0", sequence(NONZERO, repeat(DIGIT, 0, MAX_DIGITS - 1)));
const FRACTION = sequence(".", repeat(DIGIT, 1, MAX_DIGITS));
/** Larger exponents could overflow a double. */
const EXPONENT = sequence(set("eE"), optional(set("+-")), repeat(DIGIT, 1, 2));

export const ANY_NUMBER: Expression = sequence(
  optional("-"),
  WHOLE,
  optional(FRACTION),
  optional(EXPONENT),
);
export const ANY_INTEGER: Expression = choice(
  "0",
  sequence(optional("-"), NONZERO, repeat(DIGIT, 0, MAX_DIGITS - 1)),
);

const MAX_SIGNIFICANT_DIGITS = 15;
const LARGEST = 10 ** MAX_SIGNIFICANT_DIGITS;
/** Remainders are states. */
export const MAX_MULTIPLE_OF = 100;

/** Whether nothing is within the bounds; false if that is not known. */
export function isEmptyRange({ isInteger, min, max }: NumberBounds): boolean {
  if (min === null || max === null) return false;
  if (min.value > max.value) return true;
  if (min.value === max.value) return min.isExclusive || max.isExclusive;
  if (!isInteger) return false;
  const first = Math.ceil(min.value) === min.value && min.isExclusive
    ? min.value + 1
    : Math.ceil(min.value);
  const last = Math.floor(max.value) === max.value && max.isExclusive
    ? max.value - 1
    : Math.floor(max.value);
  return first > last;
}

/** @throws {GrammarError} If the bounds are too far from zero to be exact. */
export function boundedNumber(bounds: NumberBounds): Expression {
  const { isInteger, min, max, multipleOf } = bounds;
  if (min === null && max === null && multipleOf === 1) {
    return isInteger ? ANY_INTEGER : ANY_NUMBER;
  }
  const beyond = (min !== null && min.value >= LARGEST) || (max !== null && max.value <= -LARGEST);
  if (beyond) {
    throw new GrammarError(
      `Cannot constrain to numbers beyond 10^${MAX_SIGNIFICANT_DIGITS}: use nearer bounds`,
    );
  }
  const zero: Bound = { value: 0, isExclusive: false };
  const parts: Expression[] = [];
  if (max === null || max.value >= 0) {
    const low = min === null || min.value < 0 ? zero : min;
    parts.push(magnitudes({ ...bounds, min: low }));
  }
  if (min === null || min.value < 0) {
    // Without -0: it is written as 0.
    const low = max === null || max.value >= 0
      ? { value: 0, isExclusive: true }
      : { ...max, value: -max.value };
    const high = min === null ? null : { ...min, value: -min.value };
    parts.push(sequence("-", magnitudes({ ...bounds, min: low, max: high })));
  }
  return choice(...parts);
}

/** Digits before and after the point, without zeros at the ends. */
interface Decimal {
  whole: string;
  fraction: string;
}

/** Exact for what JavaScript prints a double as. @param value Not negative. */
function decimalOf(value: number): Decimal {
  const [mantissa, exponent = "0"] = String(value).split("e");
  const [whole, fraction = ""] = mantissa.split(".");
  const shift = Number(exponent);
  const digits = whole + fraction;
  const point = whole.length + shift;
  const padded = point < 0
    ? { whole: "", fraction: "0".repeat(-point) + digits }
    : { whole: digits.slice(0, point).padEnd(point, "0"), fraction: digits.slice(point) };
  return { whole: padded.whole.replace(/^0+/, ""), fraction: padded.fraction.replace(/0+$/, "") };
}

/** Where a number is: equal to the bounds so far or not, and its remainder. */
interface Place {
  isAfterPoint: boolean;
  /** Digits of this part so far. */
  numDigits: number;
  isAtMin: boolean;
  isAtMax: boolean;
  remainder: number;
}

/** All numbers from `min` (given, not negative) to `max`, by the number of digits before the point. */
function magnitudes(bounds: NumberBounds): Expression {
  const parts: Expression[] = [];
  for (let numWhole = 1; numWhole <= MAX_SIGNIFICANT_DIGITS; numWhole++) {
    const digits = new DigitGraph(bounds, numWhole);
    if (digits.isPossible) parts.push(digits.expression());
  }
  return choice(...parts);
}

class DigitGraph {
  readonly #bounds: NumberBounds;
  readonly #numWhole: number;
  readonly #min: Decimal;
  readonly #max: Decimal | null;
  readonly #ids = new Map<string, number>();
  readonly #arcs: Arc[] = [];
  readonly #pending: { id: number; place: Place }[] = [];

  constructor(bounds: NumberBounds, numWhole: number) {
    this.#bounds = bounds;
    this.#numWhole = numWhole;
    this.#min = decimalOf(bounds.min!.value);
    this.#max = bounds.max === null ? null : decimalOf(bounds.max.value);
  }

  /** A zero has one digit here, though its decimal has none. */
  get isPossible(): boolean {
    const isTooSmall = this.#min.whole.length > this.#numWhole;
    const least = this.#numWhole === 1 ? 0 : this.#numWhole;
    return !isTooSmall && (this.#max === null || this.#max.whole.length >= least);
  }

  expression(): Expression {
    this.#idOf({
      isAfterPoint: false,
      numDigits: 0,
      isAtMin: this.#min.whole.length === this.#numWhole || this.#numWhole === 1,
      isAtMax: this.#max !== null && (this.#max.whole.length <= this.#numWhole),
      remainder: 0,
    });
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) {
      this.#addArcs(next.id, next.place);
    }
    return { kind: "graph", numStates: this.#ids.size + 1, arcs: this.#arcs };
  }

  /** State 1 is the end. */
  #idOf(place: Place): number {
    const key = Object.values(place).join();
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#ids.size === 0 ? 0 : this.#ids.size + 1;
    this.#ids.set(key, id);
    this.#pending.push({ id, place });
    return id;
  }

  #addArcs(id: number, place: Place): void {
    const isWhole = !place.isAfterPoint && place.numDigits === this.#numWhole;
    if (this.#canEnd(place)) this.#arcs.push({ from: id, to: 1, part: sequence() });
    if (isWhole && !this.#bounds.isInteger && this.#numWhole < MAX_SIGNIFICANT_DIGITS) {
      const to = this.#idOf({ ...place, isAfterPoint: true, numDigits: 0 });
      this.#arcs.push({ from: id, to, part: sequence(".") });
    }
    const isFull = place.isAfterPoint
      ? place.numDigits + this.#numWhole === MAX_SIGNIFICANT_DIGITS
      : isWhole;
    if (isFull) return;
    const isFirst = !place.isAfterPoint && place.numDigits === 0;
    for (let digit = isFirst && this.#numWhole > 1 ? 1 : 0; digit <= 9; digit++) {
      const next = this.#after(place, digit);
      if (next === null) continue;
      this.#arcs.push({ from: id, to: this.#idOf(next), part: sequence(String(digit)) });
    }
  }

  #after(place: Place, digit: number): Place | null {
    const least = place.isAtMin ? this.#digitAt(this.#min, place) : 0;
    const most = place.isAtMax ? this.#digitAt(this.#max!, place) : 9;
    if (digit < least || digit > most) return null;
    return {
      isAfterPoint: place.isAfterPoint,
      numDigits: place.numDigits + 1,
      isAtMin: place.isAtMin && digit === least,
      isAtMax: place.isAtMax && digit === most,
      remainder: (place.remainder * 10 + digit) % this.#bounds.multipleOf,
    };
  }

  #digitAt(decimal: Decimal, { isAfterPoint, numDigits }: Place): number {
    const part = isAfterPoint ? decimal.fraction : decimal.whole.padStart(this.#numWhole, "0");
    return Number(part[numDigits] ?? "0");
  }

  #canEnd(place: Place): boolean {
    const isCut = place.isAfterPoint ? place.numDigits === 0 : place.numDigits < this.#numWhole;
    if (isCut || place.remainder !== 0) return false;
    const { min, max } = this.#bounds;
    const isLow = place.isAtMin && (min!.isExclusive || this.#hasMore(this.#min, place));
    const isHigh = place.isAtMax && max!.isExclusive && !this.#hasMore(this.#max!, place);
    return !isLow && !isHigh;
  }

  /** Digits other than zeros come after those that were compared. */
  #hasMore({ fraction }: Decimal, { isAfterPoint, numDigits }: Place): boolean {
    return fraction.length > (isAfterPoint ? numDigits : 0);
  }
}
