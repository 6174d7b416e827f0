import type { ChatMessage, GenerateOptions, GenerationResult, Model } from "../runtime/types.ts";

/** A conversation: the messages so far, and what the last answer cost. */
export class ChatSession {
  system: string | null;
  readonly results: GenerationResult[] = [];
  #turns: ChatMessage[] = [];

  constructor(
    readonly model: Model,
    private readonly options: GenerateOptions,
    system: string | undefined,
  ) {
    this.system = system ?? null;
  }

  get messages(): ChatMessage[] {
    const system = this.system === null ? [] : [{ role: "system", content: this.system }];
    return [...system, ...this.#turns];
  }

  /**
   * Replaces the conversation.
   *
   * @throws {TypeError} If it is not a list of messages.
   */
  load(messages: unknown): void {
    if (!Array.isArray(messages) || !messages.every(isMessage)) {
      throw new TypeError('it must have "messages", each with a role and content');
    }
    const [first, ...rest] = messages;
    this.system = first?.role === "system" ? first.content : null;
    this.#turns = first?.role === "system" ? rest : [...messages];
  }

  reset(): void {
    this.#turns = [];
  }

  /** Takes back the last question and its answer; returns the question, or null if there is none. */
  undo(): string | null {
    const at = this.#turns.findLastIndex(({ role }) => role === "user");
    if (at < 0) return null;
    const [question] = this.#turns.splice(at);
    return question.content;
  }

  /** Asks, calls `onText` as the answer comes, and keeps both unless the model fails. */
  async ask(
    question: string,
    signal: AbortSignal,
    onText: (text: string) => void,
  ): Promise<GenerationResult> {
    const user = { role: "user", content: question };
    const generation = this.model.chat([...this.messages, user], { ...this.options, signal });
    for await (const { text } of generation) onText(text);
    const result = await generation;
    this.#turns.push(user, { role: "assistant", content: result.text });
    this.results.push(result);
    return result;
  }
}

function isMessage(value: unknown): value is ChatMessage {
  const { role, content } = (value ?? {}) as Partial<ChatMessage>;
  return typeof role === "string" && typeof content === "string";
}
