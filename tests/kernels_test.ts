/**
 * Every ternary kernel that this CPU runs, on edge shapes, random and extreme inputs; and canaries:
 * kernels that are wrong on purpose, which the proof must see and the choice must leave.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { kernelName, kernelsFor } from "../codegen/ternary_linear/spec.ts";
import { KernelRejectedError, librarySources, openKernels } from "../kernels/choose.ts";
import { compileLibrary } from "../kernels/compile.ts";
import { ProofError, proveShapes } from "../kernels/proof.ts";
import { withEnvironment } from "../kernels/test_helpers.ts";
import { linearsSources } from "../kernels/timing.ts";
import { EDGE_SHAPES, GROUP_SHAPES, GROUPS } from "./edge_linears.ts";
import { CPU, KERNELS_OF_ARCH, lackingFor, NATIVE_ISAS, ZIG } from "./machine.ts";
import { ODD_MODELS } from "./odd_models.ts";
import { withFolder } from "./safetensors_file.ts";
import { testUnless } from "./tools.ts";

for (const kernel of KERNELS_OF_ARCH) {
  const name = `kernels: ${kernelName(kernel)} equals the reference on edge shapes`;
  testUnless(lackingFor(kernel.isa), name, async () => {
    const sources = linearsSources(kernel, EDGE_SHAPES);
    const { path: file } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
    const compared = proveShapes(file, EDGE_SHAPES, kernel);
    assert.ok(compared > EDGE_SHAPES.length * 10, `only ${compared} sums were compared`);
  });
}

/** The first groups on all instruction sets, the others on one that has most kinds of tiles. */
for (const [i, groups] of GROUPS.entries()) {
  const isas = KERNELS_OF_ARCH.filter(({ isa }) => i === 0 || /avx2|dotprod/.test(isa));
  const rows = kernelsFor(groups).filter((row) => isas.some(({ isa }) => isa === row.isa));
  for (const kernel of rows) {
    const { size, scaleType = "f32", weightScales } = groups;
    const factors = weightScales ? `${scaleType} factors` : "no factors";
    const name = `kernels: ${kernelName(kernel)} with groups of ${size} and ${factors}`;
    testUnless(lackingFor(kernel.isa), name, async () => {
      const sources = linearsSources(kernel, GROUP_SHAPES);
      const { path: file } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
      assert.ok(proveShapes(file, GROUP_SHAPES, kernel) > 1000);
    });
  }
}

/**
 * AVX-VNNI is vpdpbusd on 256 bits, which CPUs with AVX-512 VNNI have too, in another encoding: the
 * same source, compiled for that, can be proved where no CPU with AVX-VNNI is at hand.
 */
const EVEX = ["avx512vl", "avx512_vnni"].filter((feature) => !CPU.features.has(feature));
for (
  const kernel of [undefined, GROUPS[0]].flatMap(kernelsFor).filter(({ isa }) => isa === "avxvnni")
) {
  const { groups } = kernel.scheme;
  const kind = groups === undefined ? "" : ` with groups of ${groups.size}`;
  const name = `kernels: ${kernelName(kernel)}${kind} in AVX-512's encoding equals the reference`;
  const shapes = groups === undefined ? EDGE_SHAPES : GROUP_SHAPES;
  const reason = EVEX.length === 0 ? null : `this CPU lacks ${EVEX.join(", ")}`;
  testUnless(reason, name, async () => {
    const sources = linearsSources(kernel, shapes);
    const cpu = "x86_64_v3+avx512vl+avx512vnni";
    const { path: file } = await compileLibrary(ZIG, { sources, isa: kernel.isa, cpu });
    assert.ok(proveShapes(file, shapes, kernel) > shapes.length * 10);
  });
}

// ---------------------------------------------------------------- canaries

/** What is done to the text of a kernel, where it has such text. All of them still compile. */
const MISTAKES: Record<string, readonly [right: string, wrong: string]> = {
  "codes are read one bit too high": [
    "words >> @splat(2 * i)",
    "words >> @splat(2 * i + 1)",
  ],
  "a code loses its upper bit": [
    "shifted & @as(Codes, @splat(3))",
    "shifted & @as(Codes, @splat(1))",
  ],
  "the offset of codes is one too many": [
    "exact - offset",
    "exact - offset - @as(math.I, @splat(1))",
  ],
  "an index is shifted too little": ["index.* >>= @splat(5)", "index.* >>= @splat(4)"],
  "a sixteenth index loses a bit": ["last[b] +% last[b] +% bit", "last[b] +% last[b]"],
  "a fraction is multiplied by too little": ["if (j < 3) 27 else 3", "if (j < 3) 26 else 3"],
  "a table lacks its last row": ["lane < 27", "lane < 26"],
  "a table lacks its last magnitude": ["for (0..14) |v|", "for (0..13) |v|"],
  "a sign is that of its neighbour": ["words << @splat(i)", "words << @splat(i ^ 1)"],
  "a group's sum starts from the first one's": [
    "starts[t * out.groups + g]",
    "starts[t * out.groups + 0 * g]",
  ],
  "a group has the factor of an input's first": [
    "inverses[t * out.groups + g]",
    "inverses[t * out.groups + 0 * g]",
  ],
  "a group has the factors of the block's first": ["out.factors + g * 32", "out.factors + 0 * g"],
  "factors are rounded in another order": [
    "sums * inverse * factors",
    "sums * (inverse * factors)",
  ],
  "a sum of a group replaces those before": ["if (g == 0) @splat(0)", "if (g >= 0) @splat(0)"],
};

/** The mistakes that a source can have, as sources. */
function mistaken(sources: ReadonlyMap<string, string>): [what: string, Map<string, string>][] {
  const text = sources.get("kernels.zig")!;
  return Object.entries(MISTAKES).filter(([, [right]]) => text.includes(right))
    .map(([what, [right, wrong]]) => {
      return [what, new Map(sources).set("kernels.zig", text.replaceAll(right, wrong))];
    });
}

/** One instruction set is enough for what is the same text in all. */
const GROUP_CANARY = kernelsFor(GROUPS[0]).filter(({ isa }) => isa === NATIVE_ISAS[0]);

for (const kernel of [...KERNELS_OF_ARCH, ...GROUP_CANARY]) {
  const { groups } = kernel.scheme;
  const kind = groups === undefined ? "" : ` with groups of ${groups.size}`;
  const name = `kernels: the proof sees a wrong ${kernelName(kernel)}${kind}`;
  testUnless(lackingFor(kernel.isa), name, async () => {
    const shapes = [groups === undefined ? { n: 33, k: 100 } : { n: 33, k: 300 }];
    const mistakes = mistaken(linearsSources(kernel, shapes));
    assert.ok(mistakes.length >= 2, "the kernel's text has changed: adapt MISTAKES");
    for (const [what, sources] of mistakes) {
      const { path: file } = await compileLibrary(ZIG, { sources, isa: kernel.isa });
      const prove = () => proveShapes(file, shapes, kernel);
      assert.throws(prove, (error: Error) => {
        assert.ok(error instanceof ProofError, `${what}: ${error.stack}`);
        assert.match(
          error.message,
          /^Kernel linear_33x[13]00 .* row \d+ of token \d+ is (-?[\d.e+-]+|NaN|-?Infinity).*, must be -?[\d.e+-]+$/,
        );
        return true;
      }, what);
    }
  });
}

/** Puts a wrong library in the place of a right one, as a compiler with a fault would. */
function replaceLibrary(right: string, wrong: string): void {
  const folder = path.dirname(right);
  // A new file: the old one may be mapped.
  fs.copyFileSync(wrong, `${right}.new`);
  fs.renameSync(`${right}.new`, right);
  fs.copyFileSync(
    path.join(path.dirname(wrong), "manifest.json"),
    path.join(folder, "manifest.json"),
  );
  const proofs = fs.readdirSync(folder).filter((name) => name.startsWith("proof-"));
  assert.equal(proofs.length, 1);
  for (const name of proofs) fs.rmSync(path.join(folder, name));
}

/** What `openKernels` says of kernels that were wrong, and which it took in the end. */
async function openedIsa(choice: "auto" | "avx512" | "avx2" | "neon" | "portable") {
  const { spec, kvType } = ODD_MODELS[0];
  const messages: string[] = [];
  const onProgress = ({ message }: { message: string }) => messages.push(message);
  const opened = await openKernels({ spec, kvType, choice }, { onProgress });
  opened.library.close();
  return { kernel: opened.kernel, messages: messages.join("\n") };
}

Deno.test("kernels: wrong ones give way to the next best, and are refused when asked for", async () => {
  await withFolder({}, (cache) =>
    withEnvironment({ TRILITH_CACHE: cache }, async () => {
      const { spec, kvType } = ODD_MODELS[0];
      const { kernel } = await openedIsa("auto");
      const best = NATIVE_ISAS[0];
      assert.equal(kernel.isa, best);
      const sources = librarySources(spec, kernel, kvType);
      const right = await compileLibrary(ZIG, { sources, isa: best });
      assert.ok(!right.compiled, "the library that was opened is another one");
      const [[, mistake]] = mistaken(sources);
      const wrong = await compileLibrary(ZIG, { sources: mistake, isa: best });
      replaceLibrary(right.path, wrong.path);
      const asked = best.startsWith("neon") ? "neon" : best as "avx512" | "avx2" | "portable";
      await assert.rejects(openedIsa(asked), KernelRejectedError);
      if (NATIVE_ISAS.length === 1) return;
      const fallback = await openedIsa("auto");
      assert.equal(fallback.kernel.isa, NATIVE_ISAS[1]);
      assert.match(fallback.messages, /is wrong on this machine.*; trying the next best/);
    }));
});
