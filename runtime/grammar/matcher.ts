/** One text on its way through a grammar, token by token. */
import type { Masks } from "./masks.ts";
import { DEAD, type Positions } from "./positions.ts";
import type { GrammarMatcher } from "./types.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";

export class TokenMatcher implements GrammarMatcher {
  readonly #masks: Masks;
  readonly #vocabulary: GrammarVocabulary;
  #positions: Positions;
  #position: number;
  #isFirst = true;

  constructor(masks: Masks, vocabulary: GrammarVocabulary, start: number) {
    this.#masks = masks;
    this.#vocabulary = vocabulary;
    this.#positions = masks.positions;
    this.#position = this.#positions.at(start);
  }

  get isComplete(): boolean {
    return this.#positions.completes(this.#position);
  }

  get isFinished(): boolean {
    return this.isComplete && this.#positions.kernel(this.#position).length === 0;
  }

  allowed(): Uint32Array {
    const isOther = this.#vocabulary.firstTree !== this.#vocabulary.tree;
    if (this.#isFirst && isOther) return this.#masks.firstMask();
    this.#follow();
    return this.#masks.maskAt(this.#position);
  }

  accept(id: number): void {
    if (this.#vocabulary.isEnd(id)) {
      if (!this.isComplete) throw this.#refusal(id);
      return;
    }
    this.#follow();
    const bytes = this.#vocabulary.bytesOf(id, this.#isFirst);
    if (bytes.length === 0) throw this.#refusal(id);
    let position = this.#position;
    for (const byte of bytes) {
      position = this.#positions.advance(position, byte);
      if (position === DEAD) throw this.#refusal(id);
    }
    this.#position = position;
    this.#isFirst = false;
  }

  /** Numbers of positions change now and then: see `Masks.positions`. */
  #follow(): void {
    const { positions } = this.#masks;
    if (positions === this.#positions) return;
    this.#position = positions.adopt(this.#positions, this.#position);
    this.#positions = positions;
  }

  #refusal(id: number): RangeError {
    return new RangeError(
      `Cannot go on by token ${id} as the grammar does not allow it here: ` +
        "draw tokens that \`allowed\` has",
    );
  }
}
