import { FLOAT_BYTES } from "../dense/template.ts";
import { BLOCK_ROWS, blocksOf, type TernaryLayout } from "../layouts/layout.ts";
import { STEP_BYTES, STEP_FEATURES, stepsOf } from "../layouts/rows32.ts";
import { headPiece, headPieces, type ModelSpec } from "../model_spec.ts";
import { paddedFloats, quantizeSymbol } from "../norm_quantize/template.ts";
import { type PackedPlan, regionOf } from "../plan.ts";
import { factorBytes, factorType, groupCount, groupSteps } from "../ternary_linear/groups.ts";
import { linearSymbol } from "../ternary_linear/scheme.ts";
import { zig } from "../writer.ts";

/**
 * Heads and embeddings that are ternary matrices with factors by group, like the linears: a 16th or less
 * of their floats. They lie in pieces of `HEAD_ROWS` rows, all codes before all factors; a last piece of
 * fewer rows is the beginning of a whole one.
 */
export type TernaryMatrix = "head" | "embedding";

/** The region that a ternary head or embedding begins with: tied, the embedding is the head. */
function matrixName({ tieWordEmbeddings }: ModelSpec, which: TernaryMatrix): TernaryMatrix {
  return tieWordEmbeddings ? "head" : which;
}

/** The ternary ones that the packed file has. */
export function ternaryMatrices(spec: ModelSpec): TernaryMatrix[] {
  const { ternaryHead, ternaryEmbedding, tieWordEmbeddings } = spec;
  return [
    ...(ternaryEmbedding && !tieWordEmbeddings ? ["embedding" as const] : []),
    ...(ternaryHead ? ["head" as const] : []),
  ];
}

/** Bytes of all pieces of one. */
export function ternaryMatrixBytes(spec: ModelSpec, layout: TernaryLayout): number {
  return ternaryMatrixSizes(spec, layout, "head").reduce((sum, [, bytes]) => sum + bytes, 0);
}

/** Regions of one. */
export function ternaryMatrixSizes(
  spec: ModelSpec,
  layout: TernaryLayout,
  which: TernaryMatrix,
): (readonly [name: string, bytes: number])[] {
  const { n, k } = headPiece(spec);
  const pieces = headPieces(spec);
  return [
    [`${which}_codes`, pieces * layout.packedBytes(n, k)],
    [`${which}_factors`, pieces * factorBytes(spec.groups, { n, k })],
  ];
}

/** Where a matrix lies in the packed data, and the bytes from one piece to the next. */
export function ternaryPlaces(spec: ModelSpec, plan: PackedPlan, which: TernaryMatrix) {
  const name = matrixName(spec, which);
  const [codes, factors] = ["codes", "factors"].map((part) => {
    const { offset, bytes } = regionOf(plan.globals, `${name}_${part}`);
    return { offset, pieceBytes: bytes / headPieces(spec) };
  });
  return { codes, factors };
}

/**
 * `embed` of a ternary embedding: codes of a row are bits of a word in each step of its block.
 *
 * @throws {RangeError} If the layout is not rows32, the only one that kernels with groups read.
 */
export function ternaryEmbedding(spec: ModelSpec, plan: PackedPlan, layout: TernaryLayout): string {
  if (layout.name !== "rows32") {
    throw new RangeError(
      `Cannot read rows of an embedding in layout ${layout.name}: it must be rows32`,
    );
  }
  const { n, k } = headPiece(spec);
  const groups = spec.groups!;
  const count = groupCount(groups, k);
  const { codes, factors } = ternaryPlaces(spec, plan, "embedding");
  const blockBytes = stepsOf(k) * STEP_BYTES;
  const shifts = Array.from({ length: STEP_FEATURES }, (_, i) => 8 * (i % 4) + 2 * (i >> 2));
  const scale = spec.embeddingScale === undefined
    ? ""
    : ` * math.splat(${Math.fround(spec.embeddingScale)})`;
  return zig`
    /// out = the embedding of a token${scale && " times a factor"}, a row of a ternary matrix.
    fn embed(weights: [*]const u8, token: i32, out: [*]f32) void {
        const id: usize = @intCast(token);
        const piece = id / ${n};
        const block = id % ${n} / ${BLOCK_ROWS};
        const row = id % ${BLOCK_ROWS};
        const codes = weights + ${codes.offset} + piece * ${codes.pieceBytes} + block * ${blockBytes} + row * 4;
        const factors: [*]const Factor = @ptrCast(@alignCast(weights + ${factors.offset} + piece * ${factors.pieceBytes} + (block * ${
    count * BLOCK_ROWS
  } + row) * ${FLOAT_BYTES[factorType(groups)!]}));
        const shifts: @Vector(16, u5) = .{ ${shifts.join(", ")} };
        for (0..${stepsOf(k)}) |step| {
            const word: u32 = @bitCast(codes[step * ${STEP_BYTES} ..][0..4].*);
            const step_codes = (@as(@Vector(16, u32), @splat(word)) >> shifts) & @as(@Vector(16, u32), @splat(3));
            const trits = @as(math.I, @intCast(step_codes)) - @as(math.I, @splat(1));
            const factor = math.widenTo(1, Factor, factors + step / ${
    groupSteps(groups)
  } * ${BLOCK_ROWS})[0];
            math.store(out + step * ${STEP_FEATURES}, @as(math.F, @floatFromInt(trits)) * math.splat(factor)${scale});
        }
    }
  `;
}

/**
 * `headInput`, which makes a normed row what the head's linear reads, and `headLogits` of a ternary head.
 * Logits of the last rows, where those are no whole block, go by way of `head_tail`.
 */
export function ternaryHead(spec: ModelSpec, plan: PackedPlan): string {
  const { n, k } = headPiece(spec);
  const { vocabSize } = spec;
  const { codes, factors } = ternaryPlaces(spec, plan, "head");
  const rest = vocabSize % BLOCK_ROWS;
  return zig`
    /// Row l of the normed rows becomes row l of the first linear input.
    fn headInput(model: *const Model, l: usize) void {
        ${quantizeSymbol(k)}(f32, model.normed + l * ${paddedFloats(k)}, 0, inputOf(model, 0), l);
    }

    /// Logits of this thread's blocks of rows of the head.
    fn headLogits(step: *const Step, thread: usize) void {
        const model = step.model;
        const count = step.batch.logit_count;
        const mine = math.share(${blocksOf(vocabSize)}, thread, model.team.threads);
        for (0..${headPieces(spec)}) |piece| {
            const part = overlap(mine, piece * ${n / BLOCK_ROWS}, ${n / BLOCK_ROWS});
            if (part[0] == part[1]) continue;
            const head: Linear = .{
                .codes = model.weights + ${codes.offset} + piece * ${codes.pieceBytes},
                .factors = @ptrCast(@alignCast(model.weights + ${factors.offset} + piece * ${factors.pieceBytes})),
                .bias = null,
            };
            const logits = step.logits + piece * ${n};
            ${rest === 0 ? wholeBlocks(spec) : cutBlocks(spec, rest)}
        }
    }
  `;
}

function wholeBlocks(spec: ModelSpec): string {
  const symbol = linearSymbol(headPiece(spec));
  return `${symbol}(head, inputOf(model, 0), count, logits, ${spec.vocabSize}, part);`;
}

/** The last block writes 32 rows, of which `rest` are logits. */
function cutBlocks(spec: ModelSpec, rest: number): string {
  const { n } = headPiece(spec);
  const symbol = linearSymbol(headPiece(spec));
  const whole = Math.floor(spec.vocabSize / BLOCK_ROWS);
  return zig`
    const last: usize = ${whole} - piece * ${n / BLOCK_ROWS};
    ${symbol}(head, inputOf(model, 0), count, logits, ${spec.vocabSize}, .{ part[0], @min(part[1], last) });
    if (part[1] <= last) continue;
    ${symbol}(head, inputOf(model, 0), count, model.head_tail, ${n}, .{ last, last + 1 });
    for (0..count) |l| {
        const from = model.head_tail[l * ${n} + last * ${BLOCK_ROWS} ..][0..${rest}];
        @memcpy(logits[l * ${spec.vocabSize} + last * ${BLOCK_ROWS} ..][0..${rest}], from);
    }
  `;
}

/** Elements a token of `head_tail`, which only rows that are no whole block need. */
export function headTail(spec: ModelSpec): number {
  return spec.ternaryHead && spec.vocabSize % BLOCK_ROWS !== 0 ? headPiece(spec).n : 0;
}
