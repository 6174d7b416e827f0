/** Memory that a step works with: its buffers, and what a model takes of it. */
import { attentionBytes } from "../attention/template.ts";
import { expertBuffers } from "../experts/template.ts";
import { sketchMemoryBytes } from "../head/template.ts";
import { headTail } from "../head/ternary.ts";
import { paddedRows } from "../layouts/layout.ts";
import { hasSketch, type LinearName, linearShape, type ModelSpec } from "../model_spec.ts";
import type { InputBuffer } from "../ternary_linear/scheme.ts";
import type { TernaryKernel } from "../ternary_linear/spec.ts";
import { inputBuffers } from "../ternary_linear/template.ts";
import { zig } from "../writer.ts";
import { type Context, contextOf, type StepOptions } from "./context.ts";
import { rowScratch } from "./linears.ts";
import { ropeElements } from "./turns.ts";

/** Buffers of one step, each `max_tokens` rows: name, Zig type and elements a token. */
export function buffers(context: Context): [name: string, type: string, elements: number][] {
  const { spec, hidden, queryRow } = context;
  const outputs = (name: LinearName) => paddedRows(linearShape(spec, name).n);
  return [
    ["h", "f32", hidden],
    ["y", "f32", paddedRows(spec.hiddenSize)],
    ["q", "f32", outputs("q")],
    ["k", "f32", outputs("k")],
    ["v", "f32", outputs("v")],
    ["attended", "f32", queryRow],
    ...mlpBuffers(context),
    ["normed", "f32", hidden],
    ...(headTail(spec) > 0
      ? [["head_tail", "f32", headTail(spec)] as [string, string, number]]
      : []),
    ...inputsOf(context).flatMap((i) =>
      inputArrays(context).map(({ name, type, elements }): [string, string, number] => [
        `x${i}_${name}`,
        type,
        elements,
      ])
    ),
  ];
}

function mlpBuffers({ spec, options }: Context): [name: string, type: string, elements: number][] {
  if (spec.experts !== undefined) return expertBuffers(spec, options.kernel.scheme).perToken;
  const features = paddedRows(spec.intermediateSize);
  return [["gate", "f32", features], ["up", "f32", features]];
}

/** Quantised inputs that exist at once: one a linear of a group where each norms its own input. */
export function inputsOf({ spec }: Context): number[] {
  return spec.linearNormEps === null ? [0] : [0, 1, 2];
}

/** The arrays of an input that has room for any linear's features. */
export function inputArrays({ options, maxFeatures }: Context): InputBuffer[] {
  return inputBuffers(options.kernel.scheme, maxFeatures);
}

/** How a model is run, as far as its memory depends on it. */
export interface StepSizes {
  threads: number;
  maxBatchTokens: number;
  contextSize: number;
}

const TYPE_BYTES: Readonly<Record<string, number>> = {
  u8: 1,
  i8: 1,
  i16: 2,
  u16: 2,
  f16: 2,
  i32: 4,
  u32: 4,
  f32: 4,
  f64: 8,
};

/**
 * Native bytes that a model takes beside its weights and its cache: buffers of a step, RoPE's tables,
 * and what attention works with. Left out are ends of cache lines and counters, some kilobytes.
 */
export function stepBufferBytes(
  spec: ModelSpec,
  options: StepOptions,
  { threads, maxBatchTokens, contextSize }: StepSizes,
): number {
  const context = contextOf(spec, options);
  const tokens = Math.max(maxBatchTokens, threads);
  const rowBytes = buffers(context)
    .reduce((sum, [, type, elements]) => sum + elements * TYPE_BYTES[type], 0);
  const { kernel: { scheme, isa }, kvType } = options;
  return tokens * rowBytes +
    threads * 8 * rowScratch(context) +
    4 * contextSize * ropeElements(spec) +
    (spec.experts ? expertMemoryBytes(spec, scheme, threads, tokens) : 0) +
    (hasSketch(spec) ? sketchMemoryBytes(spec, threads) : 0) +
    attentionBytes(spec, kvType, isa, { threads, tokens, contextSize });
}

export function expertMemory(spec: ModelSpec, { kernel }: StepOptions): string {
  const { threadBytes, sharedBytes } = expertBuffers(spec, kernel.scheme);
  const { numExperts, numExpertsPerTok } = spec.experts!;
  return zig`
    model.thread_expert_bytes = ${threadBytes};
    model.thread_experts = carver.take(u8, threads * ${threadBytes});
    model.shared_experts = carver.take(u8, ${sharedBytes});
    model.groups = carver.take(u32, threads * (${
    numExperts + 2
  } + 2 * tokens * ${numExpertsPerTok}));
  `;
}

/** The bytes of that. */
function expertMemoryBytes(
  spec: ModelSpec,
  scheme: TernaryKernel["scheme"],
  threads: number,
  tokens: number,
): number {
  const { threadBytes, sharedBytes } = expertBuffers(spec, scheme);
  const { numExperts, numExpertsPerTok } = spec.experts!;
  return threads * (threadBytes + 4 * (numExperts + 2 + 2 * tokens * numExpertsPerTok)) +
    sharedBytes;
}
