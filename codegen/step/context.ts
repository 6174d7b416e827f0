/** What the templates of a step look up, and what steers them. */
import { paddedRows } from "../layouts/layout.ts";
import { type KvType, type ModelSpec, ternaryShapes } from "../model_spec.ts";
import { paddedFloats } from "../norm_quantize/template.ts";
import { type PackedPlan, planOf } from "../plan.ts";
import { factorType } from "../ternary_linear/groups.ts";
import { kernelName, type TernaryKernel } from "../ternary_linear/spec.ts";

/** Raised whenever the exported functions or the batch change: a stale library is never called. */
export const ABI_VERSION = 6;

/** What steers generation beside the model's shapes. */
export interface StepOptions {
  /** How ternary linears are multiplied. */
  kernel: TernaryKernel;
  /** How keys and values are kept. */
  kvType: KvType;
}

/** Everything a model's templates look up, computed once. */
export interface Context {
  spec: ModelSpec;
  plan: PackedPlan;
  options: StepOptions;
  hidden: number;
  queries: number;
  queryRow: number;
  maxFeatures: number;
  maxOutputs: number;
}

export function contextOf(spec: ModelSpec, options: StepOptions): Context {
  checkKernel(spec, options.kernel);
  const queries = spec.numAttentionHeads * spec.headDim;
  const shapes = ternaryShapes(spec);
  return {
    spec,
    plan: planOf(spec, options.kernel.scheme.layout),
    options,
    hidden: paddedFloats(spec.hiddenSize),
    queries,
    queryRow: paddedFloats(queries),
    maxFeatures: Math.max(...shapes.map((shape) => shape.k)),
    maxOutputs: Math.max(...shapes.map((shape) => paddedRows(shape.n))),
  };
}

/** @throws {RangeError} If the kernel rounds inputs otherwise than the model; see `kernelsFor`. */
function checkKernel({ groups }: ModelSpec, kernel: TernaryKernel): void {
  const [wanted, has] = [groups, kernel.scheme.groups].map((one) =>
    one && [one.size, factorType(one)].join()
  );
  if (wanted === has) return;
  throw new RangeError(
    `Cannot use ${kernelName(kernel)} as the model has ${
      wanted ? `groups of ${wanted}` : "no groups"
    }` +
      `: the kernel has ${has ? `groups of ${has}` : "none"}`,
  );
}
