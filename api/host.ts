import type { Model, Progress } from "../runtime/types.ts";
import { ApiError } from "./errors.ts";

/** What the model is doing. */
export type HostState =
  | { kind: "loading"; progress: Progress | null }
  | { kind: "ready"; model: Model }
  | { kind: "failed"; error: unknown };

/** The model that is served: it loads while the server answers already. */
export class ModelHost {
  #state: HostState = { kind: "loading", progress: null };
  /** The model, or why it could not be loaded. */
  readonly loaded: Promise<Model>;

  /**
   * Begins to load.
   *
   * @param name What clients call the model.
   * @param load Opens it.
   */
  constructor(
    readonly name: string,
    load: (onProgress: (progress: Progress) => void) => Promise<Model>,
  ) {
    this.loaded = load((progress) => {
      if (this.#state.kind === "loading") this.#state = { kind: "loading", progress };
    });
    this.loaded.then(
      (model) => this.#state = { kind: "ready", model },
      (error) => this.#state = { kind: "failed", error },
    );
  }

  /** How far loading is. */
  get state(): HostState {
    return this.#state;
  }

  /** The loaded model. @throws {ApiError} 503 as long as it loads. */
  get model(): Model {
    if (this.#state.kind === "ready") return this.#state.model;
    throw new ApiError(503, "unavailable_error", "The model is not loaded yet: try again soon", {
      retryAfterSeconds: 2,
    });
  }
}
