/** Sets of code points as sorted ranges that do not touch. */

export const MAX_CODE_POINT = 0x10ffff;

export interface Range {
  lo: number;
  hi: number;
}
export type Ranges = readonly Range[];

/** What a text can consist of: code points without halves of surrogate pairs. */
export const ANY: Ranges = [{ lo: 0, hi: 0xd7ff }, { lo: 0xe000, hi: MAX_CODE_POINT }];

/** Ranges in any order, overlapping or not. */
export function union(ranges: Ranges): Ranges {
  const sorted = [...ranges].sort((a, b) => a.lo - b.lo);
  const merged: Range[] = [];
  for (const { lo, hi } of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && lo <= last.hi + 1) last.hi = Math.max(last.hi, hi);
    else merged.push({ lo, hi });
  }
  return merged;
}

/** Characters of a text that are not in `ranges`. */
export function complement(ranges: Ranges): Ranges {
  const gaps: Range[] = [];
  let next = 0;
  for (const { lo, hi } of union(ranges)) {
    if (next < lo) gaps.push({ lo: next, hi: lo - 1 });
    next = hi + 1;
  }
  if (next <= MAX_CODE_POINT) gaps.push({ lo: next, hi: MAX_CODE_POINT });
  return intersection(gaps, ANY);
}

export function intersection(a: Ranges, b: Ranges): Ranges {
  const both: Range[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    const lo = Math.max(a[i].lo, b[j].lo);
    const hi = Math.min(a[i].hi, b[j].hi);
    if (lo <= hi) both.push({ lo, hi });
    if (a[i].hi < b[j].hi) i++;
    else j++;
  }
  return both;
}

/** `"az09_"`: pairs of ends; a character twice is itself. */
export function pairs(ends: string): Ranges {
  const points = Array.from(ends, (character) => character.codePointAt(0)!);
  const ranges = [];
  for (let i = 0; i + 1 < points.length; i += 2) ranges.push({ lo: points[i], hi: points[i + 1] });
  return union(ranges);
}

/** Every character of `text`. */
export function oneOf(text: string): Ranges {
  return union(Array.from(text, (character) => {
    const point = character.codePointAt(0)!;
    return { lo: point, hi: point };
  }));
}
