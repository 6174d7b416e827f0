/**
 * The phases into which `bench --profile` divides a step, in the order in which a step comes to them,
 * and what they are: a step should be ternary linears, attention and head, and little of the rest.
 */
export const STEP_PHASES = {
  embedding: "rest",
  inputNorm: "rest",
  qkv: "linears",
  rope: "rest",
  attention: "attention",
  outputNorm: "rest",
  o: "linears",
  mlpNorm: "rest",
  /** Scores of all experts, where a model has experts. */
  router: "linears",
  pick: "rest",
  /** Inputs of an expert's tokens, where it has more than one. */
  gather: "rest",
  gateUp: "linears",
  activation: "rest",
  down: "linears",
  /** The sum of a token's experts. */
  combine: "rest",
  finalNorm: "rest",
  /** Bounds of all logits from the head's sketch; then `head` is the exact rows. */
  sketch: "head",
  head: "head",
  /** From the call of a step until its threads run, and from the last phase until all have ended. */
  handover: "rest",
} as const;

/** The name of a phase. */
export type StepPhase = keyof typeof STEP_PHASES;
export const STEP_PHASE_NAMES = Object.keys(STEP_PHASES) as StepPhase[];

/** Phases that only models with a sketch of their head have. */
export const SKETCH_PHASES: readonly StepPhase[] = ["sketch"];

/** Phases that only models with experts have. */
export const EXPERT_PHASES: readonly StepPhase[] = ["router", "pick", "gather", "combine"];
