/**
 * Tokens back to text, one at a time: `decode` of a whole list is the same thing run to its end,
 * so a stream can not differ from it. By the `decoder` section of a tokenizer.json.
 *
 * Source: Hugging Face tokenizers' decoders (ByteLevel, Sequence of Replace, ByteFallback, Fuse and
 * Strip, Metaspace).
 */
import { byteLevelBytes } from "./byte_level.ts";
import { CheckpointError, shown, UnsupportedModelError } from "./errors.ts";
import { isJsonObject, type Json, type JsonObject } from "./json.ts";

/** How the spelling of tokens becomes text. */
export interface DecoderRules {
  /** GPT-2's byte characters; otherwise tokens are text. */
  byteLevel: boolean;
  /** Replacements in each token, in order. */
  replacements: readonly { from: string; to: string }[];
  /** Tokens <0x00> ... <0xFF> stand for bytes. */
  byteFallback: boolean;
  /** Up to `count` times `content` is dropped from the start of the text. */
  strip: { content: string; count: number };
  /** Metaspace: the first token loses its marks altogether. */
  firstTokenDrops: string | null;
  /** Between tokens: a space where a tokenizer has no decoder. */
  separator: string;
}

const PLAIN: DecoderRules = {
  byteLevel: false,
  replacements: [],
  byteFallback: false,
  strip: { content: "", count: 0 },
  firstTokenDrops: null,
  separator: "",
};

/** @throws {CheckpointError | UnsupportedModelError} If it is malformed or of an unknown type. */
export function parseDecoder(section: Json | undefined): DecoderRules {
  if (section === null || section === undefined) return { ...PLAIN, separator: " " };
  const stages = stagesOf(section);
  const rules = { ...PLAIN, replacements: [...PLAIN.replacements] };
  let isFused = false;
  for (const stage of stages) {
    const mustPrecedeFuse = stage.type !== "Strip" && stage.type !== "Fuse";
    if (isFused === mustPrecedeFuse && stage.type !== "Fuse") throw unknownDecoder(section);
    isFused ||= stage.type === "Fuse";
    addStage(rules, stage, section);
  }
  if (rules.byteLevel && stages.length > 1) throw unknownDecoder(section);
  return rules;
}

function stagesOf(section: Json): JsonObject[] {
  if (!isJsonObject(section)) throw malformed(section);
  if (section.type !== "Sequence") return [section];
  const { decoders } = section;
  if (!Array.isArray(decoders) || !decoders.every(isJsonObject)) throw malformed(section);
  return decoders;
}

type MutableRules = DecoderRules & { replacements: { from: string; to: string }[] };

function addStage(rules: MutableRules, stage: JsonObject, whole: Json): void {
  switch (stage.type) {
    case "ByteLevel":
      rules.byteLevel = true;
      return;
    case "ByteFallback":
      rules.byteFallback = true;
      return;
    case "Fuse":
      return;
    case "Replace":
      rules.replacements.push(replacementOf(stage));
      return;
    case "Strip":
      rules.strip = stripOf(stage);
      return;
    case "Metaspace":
      addMetaspace(rules, stage);
      return;
    default:
      throw unknownDecoder(whole);
  }
}

function replacementOf(stage: JsonObject): { from: string; to: string } {
  const from = isJsonObject(stage.pattern) ? stage.pattern.String : undefined;
  if (typeof from === "string" && from !== "" && typeof stage.content === "string") {
    return { from, to: stage.content };
  }
  throw malformed(stage);
}

function stripOf(stage: JsonObject): { content: string; count: number } {
  const { content, start, stop } = stage;
  const isSound = typeof content === "string" && Number.isSafeInteger(start) && Number(start) >= 0;
  if (!isSound) throw malformed(stage);
  // What is at the end is not known before the end: such a text could not be streamed.
  if (stop !== 0) throw unknownDecoder(stage);
  return { content: content as string, count: start as number };
}

function addMetaspace(rules: MutableRules, stage: JsonObject): void {
  const mark = stage.replacement ?? "\u2581";
  if (typeof mark !== "string" || mark === "") throw malformed(stage);
  rules.replacements.push({ from: mark, to: " " });
  const isLegacyNever = stage.prepend_scheme === undefined && stage.add_prefix_space === false;
  if (stage.prepend_scheme !== "never" && !isLegacyNever) rules.firstTokenDrops = mark;
}

function malformed(value: unknown): CheckpointError {
  return new CheckpointError(
    `Cannot read the tokenizer: its decoder is malformed: ${shown(value)}`,
  );
}

function unknownDecoder(value: unknown): UnsupportedModelError {
  return new UnsupportedModelError(
    `Cannot read the tokenizer: its decoder is not known: ${shown(value)}`,
  );
}

const encoder = new TextEncoder();
const BYTE_TOKEN = /^<0x[0-9A-Fa-f]{2}>$/;

/** The byte that a fallback token such as <0x0A> stands for, or null. */
export function fallbackByte(token: string): number | null {
  return BYTE_TOKEN.test(token) ? parseInt(token.slice(3, 5), 16) : null;
}

/** Raw bytes of a token, whatever stands before it. */
export function bytesOfToken(rules: DecoderRules, token: string): Uint8Array {
  if (rules.byteLevel) return byteLevelBytes(token);
  const byte = rules.byteFallback ? fallbackByte(token) : null;
  return byte !== null ? Uint8Array.of(byte) : encoder.encode(replaced(rules, token));
}

/** What a token adds to a text. Bytes of a run are told one by one, as if the run were whole UTF-8. */
export function bytesOfPiece(rules: DecoderRules, token: string, isFirst: boolean): Uint8Array {
  const bytes = bytesOfToken(rules, token);
  if (rules.byteLevel) return bytes;
  if (!isFirst) return joined(encoder.encode(rules.separator), bytes);
  const isByte = rules.byteFallback && fallbackByte(token) !== null;
  if (isByte && !encoder.encode(rules.strip.content).includes(bytes[0])) return bytes;
  const decoder = createTokenDecoder(rules);
  return encoder.encode(decoder.push(token) + decoder.flush());
}

function joined(before: Uint8Array, after: Uint8Array): Uint8Array {
  return before.length === 0 ? after : Uint8Array.of(...before, ...after);
}

function replaced(rules: DecoderRules, token: string): string {
  return rules.replacements.reduce((text, { from, to }) => text.replaceAll(from, to), token);
}

/** Turns tokens into text as they come. Text comes out once nothing can change it any more. */
export interface TokenDecoder {
  push(token: string): string;
  /** What is left when no more tokens come. */
  flush(): string;
}

export function createTokenDecoder(rules: DecoderRules): TokenDecoder {
  return rules.byteLevel ? new ByteLevelDecoder() : new PieceDecoder(rules);
}

/** All tokens are bytes of one UTF-8 text; invalid ones become U+FFFD. */
class ByteLevelDecoder implements TokenDecoder {
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

  push(token: string): string {
    return this.#utf8.decode(byteLevelBytes(token), { stream: true });
  }

  flush(): string {
    return this.#utf8.decode();
  }
}

/** Tokens are text, but for runs of byte tokens. */
class PieceDecoder implements TokenDecoder {
  readonly #rules: DecoderRules;
  #run: number[] = [];
  #stripsLeft: number;
  #isFirst = true;

  constructor(rules: DecoderRules) {
    this.#rules = rules;
    this.#stripsLeft = rules.strip.count;
  }

  push(token: string): string {
    const separator = this.#isFirst ? "" : this.#rules.separator;
    const drops = this.#isFirst ? this.#rules.firstTokenDrops : null;
    this.#isFirst = false;
    const plain = drops === null ? token : token.replaceAll(drops, "");
    const text = replaced(this.#rules, plain);
    const byte = this.#rules.byteFallback ? fallbackByte(text) : null;
    if (byte !== null) {
      this.#run.push(byte);
      return "";
    }
    return this.#stripped(this.#takeRun() + separator + text);
  }

  flush(): string {
    return this.#stripped(this.#takeRun());
  }

  /**
   * The reference decoder takes a run of byte tokens as a whole: either all of it is UTF-8, or
   * every byte of it becomes U+FFFD. So nothing of a run is known before it ends.
   */
  #takeRun(): string {
    if (this.#run.length === 0) return "";
    const bytes = Uint8Array.from(this.#run);
    this.#run = [];
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return "\ufffd".repeat(bytes.length);
    }
  }

  #stripped(text: string): string {
    const { content } = this.#rules.strip;
    let rest = text;
    while (this.#stripsLeft > 0 && rest !== "") {
      if (!rest.startsWith(content)) {
        this.#stripsLeft = 0;
        break;
      }
      rest = rest.slice(content.length);
      this.#stripsLeft--;
    }
    return rest;
  }
}
