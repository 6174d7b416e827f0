/**
 * How a checkpoint keeps its linears, by the quantization_config of its config.json and its tensors.
 *
 * Sources: transformers' integrations/bitnet.py; 1bitLLM's configuration_bitnet.py (weight_bits,
 * input_bits).
 */
import { type FloatType, type ModelSpec, MOST_GROUP_FEATURES } from "../codegen/model_spec.ts";
import type { ConfigReader } from "./config_reader.ts";
import type { Grain } from "./exact_ternary.ts";
import { NotTernaryError, shown, shownList, UnsupportedModelError } from "./errors.ts";
import type { Tensors } from "./models/architecture.ts";
import { hasOwnNorms, type TensorNames } from "./tensor_names.ts";
import { GGML_TYPES, type TensorInfo } from "./tensors.ts";
import type { TernaryGrain } from "./ternary_grain.ts";

/**
 * How linears are kept. `bitnet` is transformers' quant_method of that name: `offline` weights are
 * packed codes (U8), `online` ones float masters that are ternarised when read. `absmean` is a
 * float model that the caller asked to ternarise. `ternary` weights are ternary as they stand: GGUF's
 * types for them, or floats of which every matrix, row or group has one magnitude.
 */
export type Quantization =
  | {
    kind: "bitnet";
    /** `bitlinear` divides by weight_scale, `autobitlinear` multiplies: same tensor, reciprocal. */
    linearClass: "bitlinear" | "autobitlinear";
    mode: "offline" | "online";
    useRmsNorm: boolean;
  }
  | { kind: "absmean" }
  | {
    kind: "ternary";
    /** What has a factor of its own. */
    scales: "matrix" | "row" | "group";
    /** Features of a group of weights; null where those have none. */
    groupSize: number | null;
    /** A type that holds all factors exactly. */
    scaleType: FloatType;
  };

export interface QuantizationOptions {
  /** Accept a plain float model and ternarise its linears. */
  quantize?: "absmean";
  /** What samples of the weights say; null if they are not ternary as they stand. */
  grain?: TernaryGrain | null;
}

/** Packed codes: four output rows to a byte. */
export const ROWS_PER_BYTE = 4;

/** True when linears are stored as packed codes with a weight_scale. */
export function isPacked(quantization: Quantization): boolean {
  return quantization.kind === "bitnet" && quantization.mode === "offline";
}

/**
 * @throws {UnsupportedModelError} If the weights are kept in a way that this version does not know.
 * @throws {NotTernaryError} If they are plain floats and `quantize` is not set.
 */
export function readQuantization(
  config: ConfigReader,
  tensors: Tensors,
  names: TensorNames,
  options: QuantizationOptions,
): Quantization {
  const quantization = config.child("quantization_config");
  if (quantization !== null) return readBitnet(quantization, tensors, names, options);
  const isPacked = tensors.get(`${names.linear(0, "q")}.weight`)?.dtype === "U8";
  if (isPacked) {
    // Without the section, nothing says whether weight_scale multiplies or divides.
    throw new UnsupportedModelError(
      "Cannot run this model: its weights are packed, but config.json has no " +
        'quantization_config: add {"quant_method": "bitnet", "linear_class": ...} as its maker says',
    );
  }
  if (options.grain) return ternaryOf(options.grain);
  if (isTernaryMaster(config) || hasOwnNorms(names)) {
    return { kind: "bitnet", linearClass: "autobitlinear", mode: "online", useRmsNorm: false };
  }
  if (options.quantize === "absmean") return { kind: "absmean" };
  throw floatLinearsError(tensors.get(`${names.linear(0, "q")}.weight`)?.dtype);
}

/** Blocks of other types have several magnitudes, whatever the weights were before. */
function floatLinearsError(dtype: TensorInfo["dtype"] | undefined): NotTernaryError {
  const type = GGML_TYPES.find((type) => type === dtype);
  return notTernaryError(
    type === undefined
      ? "its linears are plain floating point"
      : `its linears are floats in ${type}`,
    type === undefined
      ? ""
      : ", and if it was, get its file in TQ1_0, TQ2_0, I2_S, Q8_0 or F16, which keep it so",
  );
}

function ternaryOf({ grain, scaleType }: TernaryGrain): Quantization {
  return typeof grain === "number"
    ? { kind: "ternary", scales: "group", groupSize: grain, scaleType }
    : { kind: "ternary", scales: grain, groupSize: null, scaleType };
}

/** What factors share, as `exact_ternary.ts` has it. */
export function grainOfQuantization(quantization: Quantization): Grain {
  if (quantization.kind !== "ternary") return "matrix";
  const { scales, groupSize } = quantization;
  return scales === "group" ? groupSize! : scales;
}

/** Features that are rounded together where only rows of weights have factors of their own. */
const INPUT_GROUP = 128;

/**
 * The key of config.json by which a converted model says of how many features those groups are; 0 where
 * inputs are rounded by token.
 */
export const INPUT_GROUP_KEY = "input_group_size";

/** Null where config.json does not say it. @throws {CheckpointError} If it is no size of groups. */
export function readInputGroup(config: ConfigReader): number | null {
  const size = config.get(INPUT_GROUP_KEY);
  if (size === null) return null;
  const isSize = typeof size === "number" && size >= 0 && size <= MOST_GROUP_FEATURES;
  if (isSize && size % 32 === 0) return size;
  return config.fail(INPUT_GROUP_KEY, `a multiple of 32 up to ${MOST_GROUP_FEATURES}`, size);
}

/** What else that depends on. */
interface InputFacts {
  /** What `readInputGroup` gives. */
  inputGroup: number | null;
  hasExperts: boolean;
  /** Whether the model was trained for int8 inputs, one factor a token. */
  takesInt8: boolean;
  /** Whether the model is a GGUF file. */
  isGguf: boolean;
}

/**
 * Parts of the graph that follow from how weights are kept. Inputs of models that were not trained for
 * int8 are rounded by groups of features, which is nearer to the floats that they were trained with. GGUF
 * files with one factor a matrix are of BitNets, as far as we know, unless they say otherwise.
 */
export function factorParts(
  quantization: Quantization,
  { inputGroup, hasExperts, takesInt8, isGguf }: InputFacts,
): Pick<ModelSpec, "rowScales" | "groups"> {
  const groups = { groups: { size: inputGroup || INPUT_GROUP, weightScales: false } };
  if (quantization.kind !== "ternary") return inputGroup ? groups : {};
  const { scales, groupSize, scaleType } = quantization;
  if (scales === "group") return { groups: { size: groupSize!, weightScales: true, scaleType } };
  const byToken = inputGroup === null
    ? hasExperts || takesInt8 || (isGguf && scales === "matrix")
    : hasExperts || inputGroup === 0;
  return {
    ...(scales === "row" ? { rowScales: true } : {}),
    ...(byToken ? {} : groups),
  };
}

/** 1bitLLM's masters, ternarised at each call by their own code; others say is_bitnet_config. */
export function isTernaryMaster(config: ConfigReader): boolean {
  const isOneBit = config.get("weight_bits") === 1 && config.get("input_bits") === 8;
  return isOneBit || config.flag("is_bitnet_config", false);
}

function notTernaryError(reason: string, more = ""): NotTernaryError {
  return new NotTernaryError(
    `Cannot run this model as ternary: ${reason}: pass --quantize absmean to round its weights, ` +
      `which a model that was not trained for it does not survive well${more}`,
  );
}

function readBitnet(
  quantization: ConfigReader,
  tensors: Tensors,
  names: TensorNames,
  options: QuantizationOptions,
): Quantization {
  const method = quantization.string("quant_method");
  if (method !== "bitnet") {
    throw new UnsupportedModelError(
      `Cannot run this model: quant_method must be "bitnet": current value is ${shown(method)}`,
    );
  }
  refuseFloatLinears(quantization.strings("modules_to_not_convert"));
  const linearClass = quantization.oneOf(
    "linear_class",
    ["bitlinear", "autobitlinear"],
    "bitlinear",
  );
  const mode = quantization.oneOf("quantization_mode", ["offline", "online"], "offline");
  const useRmsNorm = quantization.flag("use_rms_norm", false);
  const isPacked = tensors.get(`${names.linear(0, "q")}.weight`)?.dtype === "U8";
  if (mode === "offline" && !isPacked && tensors.has(`${names.linear(0, "q")}.weight`)) {
    if (options.quantize !== "absmean") {
      throw notTernaryError('quantization_mode is "offline", but its weights are not packed');
    }
    return { kind: "bitnet", linearClass, mode: "online", useRmsNorm };
  }
  if (mode === "online" && isPacked) {
    throw new UnsupportedModelError(
      'Cannot run this model: quantization_mode is "online", but its weights are packed: ' +
        'set it to "offline" if its maker says so',
    );
  }
  return { kind: "bitnet", linearClass, mode, useRmsNorm };
}

/** Last parts of module names that stand for ternary linears or for something around them. */
const TERNARY_MODULE = /^(model|layers|self_attn|mlp|\d+|[qkvo]_proj|gate_proj|up_proj|down_proj)$/;

function refuseFloatLinears(notConverted: readonly string[]): void {
  const floats = notConverted.filter((name) => TERNARY_MODULE.test(name.split(".").at(-1)!));
  if (floats.length === 0) return;
  throw new UnsupportedModelError(
    `Cannot run this model: all linears of its layers must be ternary, but ` +
      `modules_to_not_convert has ${shownList(floats)}`,
  );
}
