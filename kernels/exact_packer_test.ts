/** Floats that are ternary as they stand: the native packer against its reference. */
import assert from "node:assert/strict";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import { packMatrix } from "../codegen/layouts/layout.ts";
import type { StoredMatrix } from "../codegen/pack/stored.ts";
import { randomOf } from "../codegen/random.ts";
import { exactFactors, type Grain, signCodes } from "../runtime/exact_ternary.ts";
import { openPacker, type TernaryPacker } from "../runtime/ternary_packer.ts";
import { compilePacker } from "./choose.ts";
import { detectCpu, supportedIsas } from "./cpu.ts";

type Kind = "f32" | "f16" | "bf16";
const KINDS: readonly Kind[] = ["f32", "f16", "bf16"];

/** About the edges of vectors of 16, 32 and 64 values and of groups; with short groups at the end. */
const SHAPES = [[1, 1], [3, 100], [5, 256], [33, 300]] as const;

function sizeOf(grain: Grain, k: number): number {
  return typeof grain === "number" ? grain : k;
}

/** Signs times the factors of a grain, -0 and groups of zeros among them, in bits. */
function exactMatrix(kind: Kind, grain: Grain, n: number, k: number, seed: number): StoredMatrix {
  const random = randomOf(seed);
  const groups = Math.ceil(k / sizeOf(grain, k));
  const factors = Float32Array.from(
    { length: n * groups },
    (_, i) =>
      i % 7 === 3 ? 0 : (1 + Math.floor(8 * random()) / 8) * 2 ** -Math.floor(12 * random()),
  );
  if (grain === "matrix") factors.fill(0.75);
  const values = Float32Array.from({ length: n * k }, (_, i) => {
    const group = Math.floor(i / k) * groups + Math.floor(i % k / sizeOf(grain, k));
    return (Math.floor(3 * random()) - 1) * factors[group];
  });
  return { kind, bytes: bytesOf(kind, values), n, k, exact: true };
}

function bytesOf(kind: Kind, values: Float32Array): Uint8Array<ArrayBuffer> {
  if (kind === "f32") return new Uint8Array(values.buffer as ArrayBuffer);
  if (kind === "f16") return new Uint8Array(Float16Array.from(values).buffer);
  const words = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

const GRAINS: readonly Grain[] = ["matrix", "row", 128, 32];

async function comparePacker(packer: TernaryPacker): Promise<void> {
  for (const [n, k] of SHAPES) {
    for (const grain of GRAINS) {
      for (const kind of KINDS) {
        const what = `${kind} ${n} x ${k} by ${grain}`;
        const matrix = exactMatrix(kind, grain, n, k, n + k);
        const factors = await packer.factors(matrix, grain, what);
        assert.deepEqual(factors, exactFactors(matrix, grain, what), what);
        const out = new Uint8Array(ROWS32.packedBytes(n, k));
        assert.equal(await packer.pack(matrix, what, out), null);
        assert.deepEqual(out, packMatrix(ROWS32, signCodes(matrix), n, k), what);
      }
    }
  }
}

/** Every value in turn becomes another one. */
async function compareFaults(packer: TernaryPacker): Promise<void> {
  for (const kind of KINDS) {
    const matrix = exactMatrix(kind, "matrix", 2, 70, 1);
    const elementBytes = matrix.bytes.length / 140;
    for (let i = 0; i < 140; i++) {
      const bytes = matrix.bytes.slice();
      // The upper byte of a number of another size; then one of what is no number.
      for (const upper of [0x41, 0x7f, 0xff]) {
        bytes.fill(upper, (i + 1) * elementBytes - 2, (i + 1) * elementBytes);
        const wrong = { ...matrix, bytes };
        const expected = (() => exactFactors(wrong, "matrix", "w")) as () => unknown;
        const factors = () => packer.factors(wrong, "matrix", "w");
        await assert.rejects(factors, { name: "CheckpointError" }, `${kind} ${i} ${upper}`);
        assert.throws(expected, { name: "CheckpointError" });
      }
    }
  }
}

for (const isa of new Set([supportedIsas(detectCpu())[0], "portable" as const])) {
  Deno.test(`packer: floats that are ternary as they stand, with ${isa}`, async () => {
    const path = await compilePacker(ROWS32, isa);
    for (const threads of [1, 3]) {
      using packer = openPacker(path, ROWS32, threads);
      await comparePacker(packer);
      await compareFaults(packer);
    }
  });
}
