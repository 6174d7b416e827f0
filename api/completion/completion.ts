import type { Generation, Model } from "../../runtime/types.ts";
import { ApiError } from "../errors.ts";
import type { Services } from "../services.ts";
import { choiceEvents } from "./choice.ts";
import { EventQueue } from "./event_queue.ts";
import type { CompletionEvent, CompletionRequest, FinishedChoice } from "./types.ts";

/** Generations that run for one request. */
export class Completion {
  readonly #queue = new EventQueue<CompletionEvent>();
  readonly #controller: AbortController;

  constructor(
    readonly request: CompletionRequest,
    generations: readonly Generation[],
    controller: AbortController,
    { observer, startedMs }: { observer: Services["observer"]; startedMs: number },
  ) {
    this.#controller = controller;
    generations.forEach((generation, choice) => {
      const prompt = request.prompts[Math.floor(choice / request.choicesPerPrompt)];
      const { parsesToolCalls } = request;
      const input = { generation, choice, promptTokens: prompt.length, parsesToolCalls };
      const events = choiceEvents({ ...input, observer, startedMs });
      // The answer is lost with one of its choices: the others need not go on.
      this.#queue.addSource(events, () => this.abort());
    });
  }

  /** Ends all generations at once, wherever they are. */
  abort(): void {
    this.#controller.abort();
  }

  /** To be iterated once. */
  events(): AsyncIterable<CompletionEvent> {
    return this.#queue.events();
  }
}

/**
 * Starts all generations of a request. What can be known to be wrong before the first token is thrown
 * here, so that the answer can still be an HTTP error.
 *
 * @param signal Of the request: for a client that left already nothing is started.
 * @throws {ApiError} 400 if a prompt does not fit.
 * @throws {RangeError} An option is out of range.
 * @throws {QueueFullError} Too many wait already.
 */
export function startCompletion(
  services: Services,
  request: CompletionRequest,
  signal: AbortSignal,
): Completion {
  if (signal.aborted) throw clientGone();
  const startedMs = performance.now();
  const { model } = services.host;
  checkPrompts(services, request);
  const controller = new AbortController();
  const generations = startAll(model, request, controller);
  return new Completion(request, generations, controller, {
    observer: services.observer,
    startedMs,
  });
}

/** @throws {ApiError} 400 if there are too many prompts, or one is too long. */
export function checkPrompts({ host, config }: Services, request: CompletionRequest): void {
  checkChoices(request, config.maxChoices);
  for (const prompt of request.prompts) checkRoom(prompt, host.model, request.promptField);
}

function startAll(
  model: Model,
  { id, prompts, choicesPerPrompt, options, grammar }: CompletionRequest,
  controller: AbortController,
): Generation[] {
  const { signal } = controller;
  const shared = { ...options, label: id, signal, ...(grammar === null ? {} : { grammar }) };
  try {
    return prompts.flatMap((prompt) =>
      Array.from(
        { length: choicesPerPrompt },
        (_, i) => model.generate(prompt, { ...shared, ...seedOf(options.seed, i) }),
      )
    );
  } catch (error) {
    controller.abort();
    throw error;
  }
}

function seedOf(seed: number | undefined, i: number): { seed?: number } {
  return seed === undefined ? {} : { seed: (seed + i) % Number.MAX_SAFE_INTEGER };
}

function checkChoices(
  { prompts, choicesPerPrompt, promptField }: CompletionRequest,
  most: number,
): void {
  const count = prompts.length * choicesPerPrompt;
  if (count <= most) return;
  throw new ApiError(
    400,
    "invalid_request_error",
    `Cannot run ${count} choices in one request as at most ${most} are allowed: send several requests`,
    { param: choicesPerPrompt > 1 ? "n" : promptField },
  );
}

function checkRoom(prompt: readonly number[], { contextSize }: Model, param: string): void {
  if (prompt.length < contextSize) return;
  throw new ApiError(
    400,
    "invalid_request_error",
    `Cannot run a prompt of ${prompt.length} tokens as the context holds ${contextSize} tokens with ` +
      `the answer: shorten the prompt`,
    { param, code: "context_length_exceeded" },
  );
}

/**
 * Waits for the whole answer.
 *
 * @param signal Of the request: a client that goes away ends it.
 * @throws {ApiError} 499, which nobody sees, if the client went away.
 */
export async function finishedChoices(
  completion: Completion,
  signal: AbortSignal,
): Promise<FinishedChoice[]> {
  const abort = () => completion.abort();
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort);
  try {
    const choices = await collected(completion);
    if (signal.aborted) throw clientGone();
    return choices;
  } finally {
    // Deno aborts the signals of answered requests too, and warns those who still listen.
    signal.removeEventListener("abort", abort);
  }
}

function clientGone(): ApiError {
  return new ApiError(499, "invalid_request_error", "The client closed the connection");
}

async function collected(completion: Completion): Promise<FinishedChoice[]> {
  const { prompts, choicesPerPrompt } = completion.request;
  const builders = Array.from(
    { length: prompts.length * choicesPerPrompt },
    () => new ChoiceBuilder(),
  );
  for await (const event of completion.events()) builders[event.choice].add(event);
  return builders.map((builder) => builder.finished!);
}

class ChoiceBuilder {
  #text = "";
  readonly #calls: FinishedChoice["calls"] = [];
  readonly #logprobs: FinishedChoice["logprobs"] = [];
  finished: FinishedChoice | null = null;

  add(event: CompletionEvent): void {
    this.#logprobs.push(...event.logprobs);
    switch (event.kind) {
      case "text":
        this.#text += event.text;
        return;
      case "call":
        this.#calls.push({ id: event.id, name: event.name, arguments: "" });
        return;
      case "arguments":
        this.#calls[event.call].arguments += event.text;
        return;
      case "end":
        this.#finish(event);
    }
  }

  #finish({ reason, result }: CompletionEvent & { kind: "end" }): void {
    this.finished = {
      text: this.#text,
      calls: this.#calls,
      logprobs: this.#logprobs,
      reason,
      result,
    };
  }
}
