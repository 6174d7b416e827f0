/** Every instruction set's attention gives the reference's bits on edge shapes, with each KV type. */
import assert from "node:assert/strict";
import { type Isa, ISAS } from "../codegen/isa.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { openLibrary } from "../kernels/ffi.ts";
import {
  ATTENTION_CASES,
  ATTENTION_SHAPES,
  attentionInput,
  attentionSources,
  expectedAttention,
} from "./edge_attention.ts";
import { KERNELS_OF_ARCH, lackingFor, ZIG } from "./machine.ts";
import { firstDifference } from "./odd_models.ts";
import { testUnless } from "./tools.ts";

const SYMBOL = {
  parameters: ["buffer", "buffer", "buffer", "buffer", "i32", "i32", "i32", "i32", "buffer"],
  result: "i32",
} as const;

async function openAttention(isa: Isa) {
  const { path } = await compileLibrary(ZIG, { sources: attentionSources(isa), isa });
  return openLibrary(
    path,
    Object.fromEntries(ATTENTION_SHAPES.map(({ symbol }) => [symbol, SYMBOL])),
  );
}

for (const isa of ISAS.filter((isa) => KERNELS_OF_ARCH.some((kernel) => kernel.isa === isa))) {
  testUnless(lackingFor(isa), `attention: ${isa} equals the reference on edge shapes`, async () => {
    const library = await openAttention(isa);
    try {
      for (const shape of ATTENTION_SHAPES) {
        for (const one of ATTENTION_CASES) {
          const input = attentionInput(shape, one);
          const out = new Float32Array(input.q.length);
          const { q, k, v, table } = input;
          const { positions, tokens, window, threads } = one;
          const call = library.symbols[shape.symbol];
          assert.equal(call(q, k, v, table, positions, tokens, window, threads, out), 0);
          const expected = expectedAttention(shape, one);
          const index = firstDifference(out, expected);
          const what = `${shape.symbol} ${JSON.stringify(one)}`;
          assert.equal(
            index,
            -1,
            `${what}: value ${index} is ${out[index]}, not ${expected[index]}`,
          );
        }
      }
    } finally {
      library.close();
    }
  });
}
