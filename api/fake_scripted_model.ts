/** A model that says what a test wants it to say, whatever the prompt. */
import { overriding } from "./test_helpers.ts";
import type { Grammar, GrammarSource } from "../runtime/grammar/types.ts";
import type {
  GenerateOptions,
  Generation,
  GenerationResult,
  Model,
  Piece,
} from "../runtime/types.ts";

export interface Script {
  /** Texts of pieces, one token each. */
  pieces: readonly string[];
  stopString?: string;
  finishReason?: "stop" | "length";
  /** Thrown after the pieces. */
  failure?: Error;
  /** Before the first piece. */
  silenceMs?: number;
}

export interface Scripted {
  model: Model;
  /** What was asked of it. */
  prompts: (string | readonly number[])[];
  options: GenerateOptions[];
  grammars: GrammarSource[];
}

/** @param base Does everything but generating. */
export function scriptedModel(base: Model, script: Script): Scripted {
  const scripted: Scripted = { model: base, prompts: [], options: [], grammars: [] };
  const generate = (prompt: string | readonly number[], options: GenerateOptions = {}) => {
    scripted.prompts.push(prompt);
    scripted.options.push(options);
    return new ScriptedGeneration(script, prompt.length, options.logprobs !== undefined);
  };
  const grammar = (source: GrammarSource): Promise<Grammar> => {
    scripted.grammars.push(source);
    return Promise.resolve({ source, numStates: 0, start: () => null! });
  };
  scripted.model = overriding(base, { generate, grammar });
  return scripted;
}

class ScriptedGeneration implements Generation {
  constructor(
    private readonly script: Script,
    private readonly promptTokens: number,
    private readonly hasLogprobs: boolean,
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<Piece> {
    await new Promise((resolve) => setTimeout(resolve, this.script.silenceMs ?? 0));
    for (const [id, text] of this.script.pieces.entries()) {
      const logprobs = [{ id, logprob: -1, top: [] }];
      yield { text, tokenIds: [id], ...(this.hasLogprobs ? { logprobs } : {}) };
    }
    if (this.script.failure !== undefined) throw this.script.failure;
  }

  then<A = GenerationResult, B = never>(
    resolved?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): PromiseLike<A | B> {
    return Promise.resolve(this.#result()).then(resolved, rejected);
  }

  #result(): GenerationResult {
    const { pieces, stopString = null, finishReason = "stop" } = this.script;
    return {
      promptTokens: this.promptTokens,
      cachedTokens: 2,
      completionTokens: pieces.length,
      tokenIds: [...pieces.keys()],
      text: pieces.join(""),
      finishReason,
      stopString,
      logprobs: null,
      head: "full",
      timings: {
        compileMs: 0,
        loadMs: 0,
        queueMs: 0,
        prefillMs: 1,
        decodeMs: 1,
        timeToFirstTokenMs: 1,
        prefillTokensPerSecond: 1,
        decodeTokensPerSecond: 1,
        draftTokens: 0,
        acceptedTokens: 0,
      },
    };
  }
}
