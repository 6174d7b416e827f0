import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { randomOf } from "../../codegen/random.ts";
import { widened } from "./float_blocks.ts";
import type { Dtype } from "./ggml_types.ts";

/** What the gguf package reads: see `tests/fixtures_made/make_blocks.py`. */
const MADE: Record<string, { blocks: string; values: string }> = JSON.parse(
  readFileSync(new URL("../../tests/fixtures_made/blocks.json", import.meta.url), "utf8"),
);

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

for (const [type, { blocks, values }] of Object.entries(MADE)) {
  Deno.test(`${type}: blocks are read as the gguf package reads them, bit for bit`, () => {
    const expected = new Float32Array(bytesOf(values).buffer);
    assert.ok(expected.length >= 192 && expected.some((value) => value !== 0));
    const found = widened(bytesOf(blocks), type as Dtype, type);
    assert.deepEqual(found.map((v) => v + 0), expected.map((v) => v + 0));
  });
}

const FACTOR = 0.375;
const HALF = new Uint8Array(Float16Array.of(FACTOR).buffer);

/** Codes of some blocks, a weight at a time put where a type's definition has it. */
function check(type: Dtype, weights: number, encode: (codes: Uint8Array) => Uint8Array): void {
  const random = randomOf(7);
  for (let block = 0; block < 50; block++) {
    const codes = Uint8Array.from({ length: weights }, () => Math.floor(random() * 3));
    const found = widened(encode(codes), type, type);
    assert.deepEqual([...found], Array.from(codes, (code) => (code - 1) * FACTOR + 0));
  }
}

/** The factor, then four neighbours a byte, the first in its lowest bits. */
function quarters(codes: Uint8Array): Uint8Array {
  const out = new Uint8Array(2 + codes.length / 4);
  out.set(HALF);
  for (let i = 0; i < codes.length; i += 4) {
    out[2 + i / 4] = codes[i] + 4 * codes[i + 1] + 16 * codes[i + 2] + 64 * codes[i + 3];
  }
  return out;
}

/** The least byte whose share of 256 is not below the share of 243 that digits in base 3 have. */
function tritByte(digits: readonly number[]): number {
  const padded = Array.from({ length: 5 }, (_, i) => digits[i] ?? 0);
  return Math.ceil(padded.reduce((value, digit) => 3 * value + digit, 0) * 256 / 243);
}

/** 80 weights in 16 bytes, 40 in 8, 8 in 2, then the factor. */
function trits(codes: Uint8Array): Uint8Array {
  const out = new Uint8Array(28);
  for (let m = 0; m < 16; m++) out[m] = tritByte([0, 1, 2, 3, 4].map((n) => codes[16 * n + m]));
  for (let m = 0; m < 8; m++) {
    out[16 + m] = tritByte([0, 1, 2, 3, 4].map((n) => codes[80 + 8 * n + m]));
  }
  for (let m = 0; m < 2; m++) {
    out[24 + m] = tritByte([0, 1, 2, 3].map((n) => codes[120 + 2 * n + m]));
  }
  out.set(HALF, 26);
  return out;
}

Deno.test("Q2_0: 64 weights behind their factor", () => check("Q2_0", 64, quarters));
Deno.test("PQ2_0: 128 weights behind their factor", () => check("PQ2_0", 128, quarters));
Deno.test("PTQ1_0: 128 weights in trits before their factor", () => check("PTQ1_0", 128, trits));
