/**
 * Small models of each architecture against public implementations: transformers computed their logits
 * in float32 (`fixtures_made/make.py`), a plain decoder in doubles does the same, and rounds the inputs
 * of linears as the kernels do where models were not trained for it.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel, type LoadOptions } from "../runtime/mod.ts";
import { MAPLE, withTernaryEnds } from "./made_variants.ts";
import { float64Logits, type Rounding } from "./float64_model.ts";
import { MADE, madeFolder, type MadeModel, publishedLogits, TOKENIZER } from "./made_models.ts";

/** Of the largest logit: float32 against doubles, where no rounding to int8 is near a tie. 3e-7 were seen. */
const TOLERANCE = 1e-5;

/** Of the largest logit, on average: where a tie was tipped, all that follows is moved a little. */
const TIPPED = 0.002;

/**
 * Of the largest logit, on average: what rounding inputs to int8 by groups may change. Seen were 0.005 of
 * Bonsai's form, 0.002 of TriLM's and 0.0002 of BitCPM's.
 */
const ROUNDING_ERROR = 0.01;

/** What a model's inputs of linears are rounded by, here and by the kernels. */
const ROUNDINGS: Record<string, Rounding> = {
  bonsai: 128,
  trilm: 128,
  bitcpm: 128,
  "embedding-qwen3": "token",
  "embedding-gemma3": "token",
  maple: "token",
};

/** Logits of all sequences as the runtime computes them, a row a token. */
async function logitsOf(made: MadeModel, options: LoadOptions): Promise<Float32Array[][]> {
  const folder = await mkdtemp(join(tmpdir(), "trilith-made-"));
  try {
    const files = { ...madeFolder(made), "tokenizer.json": JSON.stringify(TOKENIZER) };
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(folder, name), content);
    }
    await using model = await loadModel(folder, options);
    const all: Float32Array[][] = [];
    for (const ids of MADE.sequences) {
      const rows: Float32Array[] = [];
      for await (const { logits } of model.logits(ids, { positions: "all" })) rows.push(logits);
      all.push(rows);
    }
    return all;
  } finally {
    await rm(folder, { recursive: true });
  }
}

type Rows = readonly (readonly ArrayLike<number>[])[];

interface Difference {
  sequence: number;
  position: number;
  /** Of the largest logit of the row. */
  most: number;
  mean: number;
}

function differences(actual: Rows, expected: Rows): Difference[] {
  return expected.flatMap((rows, sequence) =>
    rows.map((row, position) => {
      const size = Math.max(...Array.from(row, Math.abs));
      const apart = Array.from(row, (v, i) => Math.abs(v - actual[sequence][position][i]) / size);
      const mean = apart.reduce((sum, v) => sum + v, 0) / apart.length;
      return { sequence, position, most: Math.max(...apart), mean };
    })
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Published rows, a token each. */
function published(made: MadeModel): Float32Array[][] {
  const vocabSize = Number(made.config.vocab_size);
  return publishedLogits(made).map((all) =>
    Array.from(
      { length: all.length / vocabSize },
      (_, t) => all.subarray(t * vocabSize, (t + 1) * vocabSize),
    )
  );
}

function checkExact({ exact }: MadeModel, apart: readonly Difference[]): void {
  const checked = apart.filter(({ sequence, position }) => exact[sequence].includes(position));
  assert.ok(checked.length >= apart.length / 4, `${checked.length} of ${apart.length} are exact`);
  for (const each of checked) assert.ok(each.most <= TOLERANCE, JSON.stringify(each));
}

for (const made of MADE.models) {
  Deno.test(`architectures: ${made.name}: doubles give transformers' logits`, () => {
    const rounding = ROUNDINGS[made.name] === "token" ? "token" : null;
    checkExact(made, differences(float64Logits(made, MADE.sequences, rounding), published(made)));
  });
}

const OTHERS = [MAPLE, withTernaryEnds(false), withTernaryEnds(true)];

for (const made of [...MADE.models, ...OTHERS]) {
  Deno.test(`architectures: ${made.name}: the kernels give what doubles give`, async () => {
    const native = await logitsOf(made, { threads: 1 });
    assert.deepEqual(await logitsOf(made, { kernels: "reference" }), native);
    const rounding = ROUNDINGS[made.name.split(",")[0]];
    const apart = differences(native, float64Logits(made, MADE.sequences, rounding));
    checkExact(made, apart);
    assert.ok(mean(apart.map((each) => each.mean)) <= TIPPED, JSON.stringify(apart));
    if (typeof rounding !== "number" || OTHERS.includes(made)) return;
    const error = mean(differences(native, published(made)).map((each) => each.mean));
    assert.ok(error <= ROUNDING_ERROR, `int8 by groups moves logits by ${error} on average`);
  });
}

Deno.test("architectures: int8 inputs by token move Maple's logits little", () => {
  const [floats, rounded] = [null, "token" as const].map((rounding) =>
    float64Logits(MAPLE, MADE.sequences, rounding)
  );
  const error = mean(differences(rounded, floats).map((each) => each.mean));
  assert.ok(error > 0 && error <= ROUNDING_ERROR, `by ${error} of the largest on average`);
});
