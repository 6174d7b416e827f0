import assert from "node:assert/strict";
import { type Isa, ISAS } from "../codegen/isa.ts";
import { packMatrix, type TernaryLayout } from "../codegen/layouts/layout.ts";
import {
  type BlockKind,
  isBlockKind,
  isFloatKind,
  STORED_BLOCKS,
  STORED_KINDS,
  storedBytes,
  type StoredKind,
  type StoredMatrix,
} from "../codegen/pack/stored.ts";
import { randomOf } from "../codegen/random.ts";
import { LAYOUTS } from "../codegen/ternary_linear/spec.ts";
import { absmeanOf, rowSums, ternaryOf } from "../runtime/ternary.ts";
import { compilePacker } from "./choose.ts";
import { detectCpu, supportedIsas } from "./cpu.ts";
import { NativePacker } from "./packer.ts";

/** About the edges of groups, lines, chunks, blocks, units and slices; and one of each alone. */
const SHAPES: readonly [n: number, k: number][] = [
  [1, 1],
  [5, 47],
  [32, 64],
  [33, 49],
  [128, 252],
  [129, 576],
  [131, 641],
  [160, 1290],
];

const KINDS = Object.keys(STORED_KINDS) as StoredKind[];

async function openPacker(isa: Isa, layout: TernaryLayout, threads: number): Promise<NativePacker> {
  return new NativePacker(await compilePacker(layout, isa), layout, threads);
}

/** Codes; or floats of which many lie at the edges of rounding, with all sorts of sizes. */
function randomMatrix(kind: StoredKind, n: number, k: number, random: () => number): StoredMatrix {
  const bytes = new Uint8Array(storedBytes({ kind, n, k }));
  const code = () => Math.floor(random() * 3);
  if (kind === "codes") bytes.forEach((_, i) => bytes[i] = code());
  else if (isFloatKind(kind)) fillFloats(kind, bytes, random);
  // Every byte is five trits.
  else if (kind === "tq1" || kind === "ptq1") bytes.forEach((_, i) => bytes[i] = random() * 256);
  else bytes.forEach((_, i) => bytes[i] = code() | code() << 2 | code() << 4 | code() << 6);
  if (kind === "q2" || kind === "pq2" || kind === "q2b") sprinkleZeros(kind, bytes, random);
  return { kind, bytes, n, k };
}

/** Some blocks get a factor of 0 or -0, and codes that must not count. */
function sprinkleZeros(kind: BlockKind, bytes: Uint8Array, random: () => number): void {
  const size = STORED_BLOCKS[kind].bytes;
  for (let at = 0; at < bytes.length; at += size) {
    if (random() < 0.7) continue;
    bytes.fill(0xff, at, at + size).set([0, random() < 0.5 ? 0 : 0x80], at);
  }
}

const SIZES = [0, -0, 1e-40, 0.5, 0.5, 1, 1, 1, 1.5, 3e4];

function fillFloats(kind: "f32" | "f16" | "bf16", bytes: Uint8Array, random: () => number): void {
  const value = () => {
    const size = SIZES[Math.floor(random() * SIZES.length)];
    return (random() < 0.5 ? size : -size) * (random() < 0.5 ? 1 : random());
  };
  const count = bytes.length / (kind === "f32" ? 4 : 2);
  const floats = Float32Array.from({ length: count }, value);
  if (kind === "f32") bytes.set(new Uint8Array(floats.buffer));
  else if (kind === "f16") bytes.set(new Uint8Array(Float16Array.from(floats).buffer));
  else {
    const words = new Uint32Array(floats.buffer);
    bytes.set(new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer));
  }
}

/** What the packer must give: the bytes and the factor. */
function expected(layout: TernaryLayout, matrix: StoredMatrix) {
  const { n, k, kind } = matrix;
  const { codes } = ternaryOf(matrix, "w");
  const factor = isFloatKind(kind) ? absmeanOf(rowSums(matrix), n * k)!.factor : 0;
  return { packed: packMatrix(layout, codes, n, k), factor };
}

async function comparePacker(packer: NativePacker, layout: TernaryLayout, seed: number) {
  const random = randomOf(seed);
  for (const [n, features] of SHAPES) {
    for (const kind of KINDS) {
      const step = isBlockKind(kind) ? STORED_BLOCKS[kind].weights : 1;
      const k = Math.ceil(features / step) * step;
      const matrix = randomMatrix(kind, n, k, random);
      const { packed, factor } = expected(layout, matrix);
      const out = new Uint8Array(packed.length).fill(0xee);
      assert.equal(await packer.pack(matrix, factor, out), true);
      assert.deepEqual(out, packed, `${kind} ${n} x ${k}, seed ${seed}`);
      if (factor !== 0) assert.deepEqual(await packer.rowSums(matrix), rowSums(matrix));
    }
  }
}

const isas = supportedIsas(detectCpu());
for (const layout of LAYOUTS) {
  for (const isa of ISAS) {
    Deno.test({
      name: `packer: ${layout.name} with ${isa} gives the bytes of the reference`,
      ignore: !isas.includes(isa),
      async fn() {
        for (const [threads, seed] of [[1, 1], [3, 2]]) {
          const packer = await openPacker(isa, layout, threads);
          try {
            await comparePacker(packer, layout, seed);
          } finally {
            packer.close();
          }
        }
      },
    });
  }
}

Deno.test("packer: code 3 is seen wherever it is, and not behind the matrix's end", async () => {
  const layout = LAYOUTS[0];
  const packer = await openPacker("portable", layout, 2);
  try {
    // Of 70 x 70, rows 70 and 71 are in the bytes of 18 x 70 but not in the matrix.
    const [n, k] = [70, 70];
    const out = new Uint8Array(layout.packedBytes(n, k));
    for (const [at, bits, isSound] of [[0, 3, 0], [17 * k + 69, 3, 0], [17 * k + 69, 3 << 6, 1]]) {
      const bytes = new Uint8Array(18 * k).fill(0b01_01_01_01);
      bytes[at] |= bits;
      const matrix: StoredMatrix = { kind: "quarters", bytes, n, k };
      assert.equal(await packer.pack(matrix, 0, out), isSound === 1, `byte ${at}, bits ${bits}`);
    }
  } finally {
    packer.close();
  }
});

Deno.test("packer: a weight that is not finite gives a sum that is not", async () => {
  const packer = await openPacker("portable", LAYOUTS[0], 2);
  try {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const weights = new Float32Array(3 * 20).fill(1);
      weights[59] = bad;
      const bytes = new Uint8Array(weights.buffer);
      const sums = await packer.rowSums({ kind: "f32", bytes, n: 3, k: 20 });
      assert.equal(absmeanOf(sums, 60), null);
      assert.deepEqual([...sums.subarray(0, 2)], [20, 20]);
    }
  } finally {
    packer.close();
  }
});
