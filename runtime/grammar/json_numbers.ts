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
  EMPTY,
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

const POINT = set(".");
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

/** Where a number is. */
interface Place {
  /** Digits before the point, of the whole number. */
  numWhole: number;
  isAfterPoint: boolean;
  /** Digits of this part so far. */
  numDigits: number;
  /** The digits so far are those of a bound. */
  isAtMin: boolean;
  isAtMax: boolean;
  remainder: number;
}

const ONE_DIGIT = Array.from({ length: 10 }, (_, digit) => set(String(digit)));

/** All numbers from `min` (given, not negative) to `max`. */
function magnitudes(bounds: NumberBounds): Expression {
  return new DigitGraph(bounds).expression();
}

class DigitGraph {
  readonly #bounds: NumberBounds;
  readonly #min: Decimal;
  readonly #max: Decimal | null;
  readonly #ids = new Map<string, number>();
  readonly #arcs: Arc[] = [];
  readonly #pending: { id: number; place: Place }[] = [];

  constructor(bounds: NumberBounds) {
    this.#bounds = bounds;
    this.#min = decimalOf(bounds.min!.value);
    this.#max = bounds.max === null ? null : decimalOf(bounds.max.value);
  }

  /** States 0 and 1 are the ends; it starts by choosing the number of digits before the point. */
  expression(): Expression {
    for (let numWhole = 1; numWhole <= MAX_SIGNIFICANT_DIGITS; numWhole++) {
      const start = this.#start(numWhole);
      if (start !== null) this.#arcs.push({ from: 0, to: this.#idOf(start), part: EMPTY });
    }
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) {
      this.#addArcs(next.id, next.place);
    }
    return { kind: "graph", numStates: this.#ids.size + 2, arcs: this.#arcs };
  }

  /** Null if there are no such numbers. A zero has one digit here, though its decimal has none. */
  #start(numWhole: number): Place | null {
    const least = numWhole === 1 ? 0 : numWhole;
    const max = this.#max?.whole.length ?? Infinity;
    if (this.#min.whole.length > numWhole || max < least) return null;
    return {
      numWhole,
      isAfterPoint: false,
      numDigits: 0,
      isAtMin: this.#min.whole.length >= least,
      isAtMax: max <= numWhole,
      remainder: 0,
    };
  }

  #idOf(place: Place): number {
    const key = this.#keyOf(place);
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#ids.size + 2;
    this.#ids.set(key, id);
    this.#pending.push({ id, place });
    return id;
  }

  /** Between the bounds only the digits that are left matter. */
  #keyOf(place: Place): string {
    const { numWhole, isAfterPoint, numDigits, isAtMin, isAtMax, remainder } = place;
    if (isAtMin || isAtMax || numDigits === 0) return Object.values(place).join();
    if (isAfterPoint) return `free fraction,${numWhole + numDigits}`;
    const left = numWhole - numDigits;
    return this.#bounds.isInteger ? `free,${left},${remainder}` : `free,${left},of ${numWhole}`;
  }

  #addArcs(id: number, place: Place): void {
    const { numWhole, isAfterPoint, numDigits } = place;
    const isWhole = !isAfterPoint && numDigits === numWhole;
    if (this.#canEnd(place)) this.#arcs.push({ from: id, to: 1, part: EMPTY });
    if (isWhole && !this.#bounds.isInteger && numWhole < MAX_SIGNIFICANT_DIGITS) {
      const to = this.#idOf({ ...place, isAfterPoint: true, numDigits: 0 });
      this.#arcs.push({ from: id, to, part: POINT });
    }
    const isFull = isAfterPoint && numDigits + numWhole === MAX_SIGNIFICANT_DIGITS;
    if (isWhole || isFull) return;
    const isLeading = !isAfterPoint && numDigits === 0 && numWhole > 1;
    for (let digit = isLeading ? 1 : 0; digit <= 9; digit++) {
      const next = this.#after(place, digit);
      if (next === null) continue;
      this.#arcs.push({ from: id, to: this.#idOf(next), part: ONE_DIGIT[digit] });
    }
  }

  #after(place: Place, digit: number): Place | null {
    const least = place.isAtMin ? digitAt(this.#min, place) : 0;
    const most = place.isAtMax ? digitAt(this.#max!, place) : 9;
    if (digit < least || digit > most) return null;
    return {
      ...place,
      numDigits: place.numDigits + 1,
      isAtMin: place.isAtMin && digit === least,
      isAtMax: place.isAtMax && digit === most,
      remainder: (place.remainder * 10 + digit) % this.#bounds.multipleOf,
    };
  }

  #canEnd(place: Place): boolean {
    const { numWhole, isAfterPoint, numDigits, isAtMin, isAtMax, remainder } = place;
    const isCut = isAfterPoint ? numDigits === 0 : numDigits < numWhole;
    if (isCut || remainder !== 0) return false;
    const { min, max } = this.#bounds;
    const isLow = isAtMin && (min!.isExclusive || hasMore(this.#min, place));
    const isHigh = isAtMax && max!.isExclusive && !hasMore(this.#max!, place);
    return !isLow && !isHigh;
  }
}

/** The digit of a bound that is to be compared next. */
function digitAt({ whole, fraction }: Decimal, place: Place): number {
  const { numWhole, isAfterPoint, numDigits } = place;
  const part = isAfterPoint ? fraction : whole.padStart(numWhole, "0");
  return Number(part[numDigits] ?? "0");
}

/** Digits other than zeros come after those that were compared. */
function hasMore({ fraction }: Decimal, { isAfterPoint, numDigits }: Place): boolean {
  return fraction.length > (isAfterPoint ? numDigits : 0);
}
