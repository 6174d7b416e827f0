/** The core that all dialects share: what is asked for, and what happens on the way to the answer. */
import type { Grammar } from "../../runtime/grammar/types.ts";
import type { GenerateOptions, GenerationResult, TokenLogprob } from "../../runtime/types.ts";

export interface CompletionRequest {
  /** Of the answer; names the sequences in `Model.status` as well. */
  id: string;
  /** The field that the prompts are from. */
  promptField: "prompt" | "messages" | "input";
  /** Token ids. A request may have several prompts, each with its own choices. */
  prompts: readonly (readonly number[])[];
  /** Choices a prompt: with a seed the first has it, the next one seed + 1, and so on. */
  choicesPerPrompt: number;
  options: Omit<GenerateOptions, "signal" | "grammar" | "label">;
  grammar: Grammar | null;
  /** Calls of functions are looked for in the text. */
  parsesToolCalls: boolean;
}

export type ChoiceReason = "stop" | "length" | "tool_calls" | "abort";

/** A call of a function that the model has asked for. */
export interface ToolCall {
  id: string;
  name: string;
  /** JSON, as the model wrote it. */
  arguments: string;
}

/** What a text turns out to be, piece by piece. */
export type TextEvent =
  | { kind: "text"; text: string }
  /** A call begins; its arguments follow. */
  | { kind: "call"; call: number; id: string; name: string }
  | { kind: "arguments"; call: number; text: string };

export interface EndEvent {
  kind: "end";
  reason: ChoiceReason;
  result: GenerationResult;
}

/** An event of one of the choices, with the tokens that it and silent ones before it took. */
export type CompletionEvent = (TextEvent | EndEvent) & {
  /** Prompt after prompt: `prompt * choicesPerPrompt + i`. */
  choice: number;
  logprobs: TokenLogprob[];
};

/** A choice when all of it is there. */
export interface FinishedChoice {
  text: string;
  calls: ToolCall[];
  logprobs: TokenLogprob[];
  reason: ChoiceReason;
  result: GenerationResult;
}
