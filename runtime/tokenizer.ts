/**
 * Text to token ids and back, by a Hugging Face tokenizer.json: byte-level BPE (Llama 3, Falcon)
 * and SentencePiece-like BPE with byte fallback (Llama 2).
 */
import { SequenceNormalizer } from "@huggingface/tokenizers";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Companions, folderCompanions } from "./companions.ts";
import {
  type AddedToken,
  AddedTokenSplitter,
  isTokenId,
  MAX_TOKENS,
  parseAddedTokens,
} from "./added_tokens.ts";
import { Bpe, type BpeModel } from "./bpe.ts";
import { CheckpointError, reasonOf, shown, UnsupportedModelError } from "./errors.ts";
import { ggufFileCompanions, ggufModels, onlyModel } from "./gguf/checkpoint.ts";
import { locateModel } from "./hub/locate.ts";
import {
  isJsonObject,
  type Json,
  type JsonObject,
  MAX_DEPTH,
  nestsDeeper,
  readTextFile,
} from "./json.ts";
import { BusyClock } from "./pause.ts";
import { createPreTokenizer, type PreTokenizer } from "./pre_tokenizer.ts";
import {
  bytesOfPiece,
  bytesOfToken,
  createTokenDecoder,
  type DecoderRules,
  parseDecoder,
  type TokenDecoder,
} from "./token_decoder.ts";
import { parseTokenizer, type TokenizerJson, wholeTokenizer } from "./tokenizer_json.ts";
import type { Tokenizer } from "./types.ts";

/** A tokenizer that can also decode a stream, token by token, exactly as `decode` would. */
export interface StreamingTokenizer extends Tokenizer {
  /** Ids that `encode` puts before and after every text. */
  readonly around: { readonly before: readonly number[]; readonly after: readonly number[] };
  /** What a token adds to a text that is decoded: as the first one, or after others. */
  pieceBytes(id: number, isFirst: boolean): Uint8Array;
  /** As `encode`, with pauses for the event loop: a long text takes tens of milliseconds. */
  encodeInTurns(text: string, options?: EncodeOptions): Promise<number[]>;
  /** A decoder of its own, which keeps back what may be part of a character. */
  decodeStream(options?: { skipSpecialTokens?: boolean }): {
    push(id: number): string;
    flush(): string;
  };
}

/** How special tokens are treated. */
export interface EncodeOptions {
  /** Add what the tokenizer puts around texts. Default true. */
  addSpecialTokens?: boolean;
  /** Take the spelling of a special token for it. Default true. */
  parseSpecial?: boolean;
}

/** Words that are encoded before one looks at the clock. */
const WORDS_A_TURN = 128;

const TOKENIZER_FILE = "tokenizer.json";

/**
 * Loads a tokenizer.json, or that of a folder, with its tokenizer_config.json where there is one; or
 * the tokenizer in a GGUF or `.trilith` file.
 *
 * @throws {CheckpointError} If it is missing or damaged.
 * @throws {UnsupportedModelError} If it is of a kind that this version does not run.
 */
export async function loadTokenizer(model: string): Promise<StreamingTokenizer> {
  const fileOrFolder = locateModel(model);
  if (/\.gguf$/i.test(fileOrFolder)) {
    return await readTokenizer(await ggufFileCompanions(fileOrFolder));
  }
  if (/\.trilith$/i.test(fileOrFolder)) {
    // Loaded when it is needed: it knows layouts and kernels.
    const { openTrilithFile } = await import("./trilith/file.ts");
    return await readTokenizer((await openTrilithFile(fileOrFolder)).companions);
  }
  const isFolder = await stat(fileOrFolder).then((info) => info.isDirectory(), () => false);
  if (isFolder) return await readTokenizer(await companionsIn(fileOrFolder));
  const text = await readTextFile(fileOrFolder);
  if (text === null) throw missingError(fileOrFolder);
  const config = await folderCompanions(dirname(fileOrFolder)).json("tokenizer_config.json");
  return tokenizerOf(parseTokenizer(text, TOKENIZER_FILE), config);
}

/** A folder's files, or what is in its GGUF model where it has nothing else. */
async function companionsIn(folder: string): Promise<Companions> {
  const hasFile = await stat(join(folder, TOKENIZER_FILE)).then(() => true, () => false);
  const models = hasFile ? [] : await ggufModels(folder);
  if (models.length === 0) return folderCompanions(folder);
  return await ggufFileCompanions(onlyModel(folder, models));
}

/** The tokenizer of a model. @throws As `loadTokenizer`. */
export async function readTokenizer(companions: Companions): Promise<StreamingTokenizer> {
  const parts = await companions.tokenizer();
  if (parts !== null) return tokenizerOf(parts, await companions.json("tokenizer_config.json"));
  const hasModel = await companions.text("tokenizer.model").then(
    (found) => found !== null,
    () => true,
  );
  throw missingError(join(companions.origin, TOKENIZER_FILE), hasModel);
}

function missingError(file: string, hasModel = false): CheckpointError {
  const remedy = hasModel
    ? "save tokenizer.model as tokenizer.json with transformers' AutoTokenizer.save_pretrained"
    : `give a ${TOKENIZER_FILE} or a folder that has one`;
  return new CheckpointError(`Cannot open ${shown(file)}: there is no such file: ${remedy}`);
}

/**
 * @param json A parsed tokenizer.json.
 * @param config A parsed tokenizer_config.json, or null.
 */
export function createTokenizer(json: Json, config: Json = null): StreamingTokenizer {
  return tokenizerOf(wholeTokenizer(json), config);
}

function tokenizerOf(parts: TokenizerJson, config: Json): StreamingTokenizer {
  const { json } = parts;
  if (!isJsonObject(json) || !isJsonObject(json.model)) {
    throw new CheckpointError(`Cannot read the tokenizer: it must be an object with a model`);
  }
  checkDepth(json);
  checkPatterns(json.normalizer);
  checkPatterns(json.pre_tokenizer);
  const addedTokens = parseAddedTokens(json.added_tokens);
  const normalize = createNormalizer(json.normalizer);
  return new BpeTokenizer({
    model: parseModel(json.model, parts),
    addedTokens,
    normalize,
    preTokenize: createPreTokenizer(json.pre_tokenizer),
    decoder: parseDecoder(json.decoder),
    template: parseTemplate(json.post_processor, config, addedTokens),
  });
}

/** Parts may hold parts; of the vocabulary and the merges every entry is looked at anyway. */
function checkDepth({ model, ...parts }: JsonObject): void {
  const { vocab: _, merges: __, ...rules } = model as JsonObject;
  if (!nestsDeeper([parts, rules], MAX_DEPTH)) return;
  throw new CheckpointError(`Cannot read the tokenizer: it nests deeper than ${MAX_DEPTH} levels`);
}

/** What replaces or splits by a pattern must have one that is known: the library skips others. */
function checkPatterns(section: Json | undefined): void {
  if (typeof section !== "object" || section === null) return;
  const type = isJsonObject(section) ? section.type : undefined;
  if (isJsonObject(section) && (type === "Replace" || type === "Split")) {
    const { Regex, String: literal } = isJsonObject(section.pattern) ? section.pattern : {};
    if (typeof (Regex ?? literal) !== "string") {
      throw new CheckpointError(
        `Cannot read the tokenizer: pattern must be {"Regex": text} or {"String": text}: ` +
          `current value is ${shown(section.pattern ?? null)}`,
      );
    }
  }
  Object.values(section).forEach(checkPatterns);
}

/** @throws {CheckpointError} If the tokenizer has ids that the model has no embedding for. */
export function checkTokenizerFits(tokenizer: Tokenizer, vocabSize: number): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new CheckpointError(
    `Cannot use this tokenizer: it has ids up to ${tokenizer.vocabSize - 1}, the model's ` +
      `vocabulary has ${vocabSize}: give the tokenizer of this model`,
  );
}

function createNormalizer(section: Json | undefined): (text: string) => string {
  if (section === null || section === undefined) return (text) => text;
  if (!isJsonObject(section)) {
    throw new CheckpointError(
      `Cannot read the tokenizer: its normalizer is malformed: ${shown(section)}`,
    );
  }
  try {
    const stages = { type: "Sequence", normalizers: [section] };
    const normalizer = new SequenceNormalizer(
      stages as unknown as ConstructorParameters<typeof SequenceNormalizer>[0],
    );
    normalizer.normalize("a b");
    return (text) => normalizer.normalize(text);
  } catch (error) {
    throw new UnsupportedModelError(
      `Cannot read the tokenizer: its normalizer is not understood: ${reasonOf(error)}`,
    );
  }
}

function parseModel(model: JsonObject, parts: TokenizerJson): BpeModel {
  // Files older than tokenizers 0.8 leave the type out.
  const type = model.type ?? (parts.merges !== null ? "BPE" : undefined);
  if (type !== "BPE") {
    throw new UnsupportedModelError(
      `Cannot read the tokenizer: its model must be "BPE": current value is ${shown(type)}`,
    );
  }
  for (const key of ["dropout", "continuing_subword_prefix", "end_of_word_suffix"]) {
    if ((model[key] ?? "") !== "" && model[key] !== 0) {
      throw new UnsupportedModelError(
        `Cannot read the tokenizer: ${key} must be absent: current value is ${shown(model[key])}`,
      );
    }
  }
  const vocab = parseVocab(parts);
  if (parts.merges === null) {
    throw new CheckpointError("Cannot read the tokenizer: its merges must be a list");
  }
  // Let go when they have been asked for: a large tokenizer's are 20 MB of text.
  let merges: TokenizerJson["merges"] = parts.merges;
  return {
    vocab,
    merges() {
      const ids = mergeIds(merges!, vocab);
      merges = null;
      return ids;
    },
    unkId: typeof model.unk_token === "string" ? vocab.get(model.unk_token) ?? null : null,
    fuseUnk: model.fuse_unk === true,
    byteIds: model.byte_fallback === true ? byteIdsOf(vocab) : null,
    ignoreMerges: model.ignore_merges === true,
  };
}

function parseVocab({ vocab: pieces }: TokenizerJson): Map<string, number> {
  if (pieces === null) {
    throw new CheckpointError("Cannot read the tokenizer: its vocab must be an object");
  }
  const vocab = new Map<string, number>();
  for (const piece of pieces) {
    // Half the time of Object.entries, for which an array is made of each of a hundred thousand.
    for (const token in piece) vocab.set(token, checkedId(token, piece[token]));
  }
  return vocab;
}

function checkedId(token: string, id: Json): number {
  if (isTokenId(id)) return id;
  throw new CheckpointError(
    `Cannot read the tokenizer: the id of ${shown(token)} must be an integer from 0 to ` +
      `${MAX_TOKENS - 1}: current value is ${shown(id)}`,
  );
}

/**
 * The pairs that may be joined, the first ones first.
 *
 * @throws {CheckpointError} If one is no pair.
 */
export function* mergePairs(merges: Iterable<Json[]>): Generator<readonly [string, string]> {
  let rank = 0;
  for (const piece of merges) {
    for (const entry of piece) {
      const pair = pairOf(entry);
      if (pair === null) throw mergeError(rank, entry);
      yield pair;
      rank++;
    }
  }
}

/** A pair, or "LEFT RIGHT". */
function pairOf(entry: Json): readonly [string, string] | null {
  if (typeof entry === "string") {
    const space = entry.indexOf(" ");
    return space < 0 ? null : [entry.slice(0, space), entry.slice(space + 1)];
  }
  const isPair = Array.isArray(entry) && entry.length === 2 &&
    entry.every((part) => typeof part === "string");
  return isPair ? entry as [string, string] : null;
}

function mergeIds(merges: Iterable<Json[]>, vocab: ReadonlyMap<string, number>): Int32Array {
  // Some vocabularies have more merges than tokens, none has many times as many. A list of numbers is
  // slower and larger.
  let ids = new Int32Array(3 * vocab.size);
  let end = 0;
  for (const pair of mergePairs(merges)) {
    if (end === ids.length) {
      const longer = new Int32Array(2 * end + 3);
      longer.set(ids);
      ids = longer;
    }
    const left = vocab.get(pair[0]);
    const right = vocab.get(pair[1]);
    const joined = vocab.get(pair[0] + pair[1]);
    if (left === undefined || right === undefined || joined === undefined) {
      throw mergeError(end / 3, pair);
    }
    ids[end++] = left;
    ids[end++] = right;
    ids[end++] = joined;
  }
  return ids.slice(0, end);
}

function mergeError(rank: number, entry: unknown): CheckpointError {
  return new CheckpointError(
    `Cannot read the tokenizer: merge ${rank} must name two tokens whose join is one: ` +
      `current value is ${shown(entry)}`,
  );
}

/** Ids of <0x00> to <0xFF>, or null when the vocabulary lacks one. */
function byteIdsOf(vocab: ReadonlyMap<string, number>): number[] | null {
  const names = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  const ids = names.map((name) => vocab.get(name));
  return ids.includes(undefined) ? null : ids as number[];
}

/** Ids that stand before and after every text. */
interface Template {
  before: number[];
  after: number[];
}

function parseTemplate(
  section: Json | undefined,
  config: Json,
  addedTokens: readonly AddedToken[],
): Template {
  const template = templateOf(section);
  const kind = isJsonObject(config) ? config.tokenizer_class : null;
  if (!isJsonObject(config) || typeof kind !== "string" || !kind.startsWith("Llama")) {
    return template;
  }
  // transformers' Llama tokenizers rebuild the template from these two flags.
  const idOf = (key: string) => {
    const content = tokenContent(config[key]);
    return addedTokens.filter((token) => token.content === content).map(({ id }) => id);
  };
  if (config.add_bos_token === true) template.before = idOf("bos_token");
  if (config.add_bos_token === false) template.before = [];
  if (config.add_eos_token === true) template.after = idOf("eos_token");
  if (config.add_eos_token === false) template.after = [];
  return template;
}

/** Text of a token in tokenizer_config.json: a string, or an object with `content`. */
export function tokenContent(value: Json | undefined): string | null {
  const content = isJsonObject(value) ? value.content : value;
  return typeof content === "string" ? content : null;
}

function templateOf(section: Json | undefined): Template {
  const none: Template = { before: [], after: [] };
  if (!isJsonObject(section)) return none;
  if (section.type === "Sequence" && Array.isArray(section.processors)) {
    const all = section.processors.map(templateOf);
    return all.find(({ before, after }) => before.length + after.length > 0) ?? none;
  }
  if (section.type === "ByteLevel") return none;
  if (section.type === "TemplateProcessing") return templateProcessing(section);
  throw new UnsupportedModelError(
    `Cannot read the tokenizer: its post_processor ${shown(section.type)} is not known`,
  );
}

function templateProcessing({ single, special_tokens: tokens }: JsonObject): Template {
  const template: Template = { before: [], after: [] };
  const fail = (value: unknown): never => {
    throw new CheckpointError(
      `Cannot read the tokenizer: its post_processor is malformed: ${shown(value)}`,
    );
  };
  if (!Array.isArray(single) || !isJsonObject(tokens)) return fail(single);
  let side = template.before;
  for (const item of single) {
    if (!isJsonObject(item)) return fail(item);
    if ("Sequence" in item) side = template.after;
    else side.push(...idsOfSpecial(item.SpecialToken, tokens) ?? fail(item));
  }
  return template;
}

function idsOfSpecial(item: Json | undefined, tokens: JsonObject): number[] | null {
  const name = isJsonObject(item) && typeof item.id === "string" ? item.id : null;
  const entry = name !== null && Object.hasOwn(tokens, name) ? tokens[name] : null;
  const ids = isJsonObject(entry) ? entry.ids : null;
  return Array.isArray(ids) && ids.every(isTokenId) ? ids as number[] : null;
}

interface Parts {
  model: BpeModel;
  addedTokens: AddedToken[];
  normalize: (text: string) => string;
  preTokenize: PreTokenizer;
  decoder: DecoderRules;
  template: Template;
}

/** Splitters for tokens that are matched before and after normalization. */
interface Splitters {
  raw: AddedTokenSplitter;
  normalized: AddedTokenSplitter;
}

class BpeTokenizer implements StreamingTokenizer {
  readonly vocabSize: number;
  readonly #parts: Parts;
  readonly #bpe: Bpe;
  readonly #tokens: string[] = [];
  readonly #addedIds = new Map<string, number>();
  readonly #specialIds: Set<number>;
  readonly #withSpecial: Splitters;
  readonly #withoutSpecial: Splitters;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#bpe = new Bpe(parts.model);
    for (const [token, id] of parts.model.vocab) this.#tokens[id] = token;
    for (const { content, id } of parts.addedTokens) this.#add(content, id);
    const specials = parts.addedTokens.filter(({ special }) => special);
    this.#specialIds = new Set(specials.map(({ id }) => id));
    this.vocabSize = this.#tokens.length;
    const others = parts.addedTokens.filter(({ special }) => !special);
    this.#withSpecial = splittersOf(parts.addedTokens, parts.normalize);
    this.#withoutSpecial = splittersOf(others, parts.normalize);
  }

  get around(): Template {
    return this.#parts.template;
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    const ids: number[] = [];
    for (const _ of this.#encodeSteps(text, options, ids));
    return ids;
  }

  async encodeInTurns(text: string, options: EncodeOptions = {}): Promise<number[]> {
    const ids: number[] = [];
    const clock = new BusyClock();
    for (const _ of this.#encodeSteps(text, options, ids)) if (clock.isLate) await clock.pause();
    return ids;
  }

  /** Adds to `ids`, and yields every few words. */
  *#encodeSteps(
    text: string,
    { addSpecialTokens = true, parseSpecial = true }: EncodeOptions,
    ids: number[],
  ): Generator<void> {
    const { before, after } = this.#parts.template;
    if (addSpecialTokens) ids.push(...before);
    const splitters = parseSpecial ? this.#withSpecial : this.#withoutSpecial;
    let isFirst = true;
    // Half a surrogate pair has no UTF-8 form.
    for (const section of splitters.raw.split(text.toWellFormed())) {
      if ("token" in section) ids.push(section.token.id);
      else yield* this.#sectionSteps(this.#parts.normalize(section.text), isFirst, splitters, ids);
      isFirst = false;
    }
    if (addSpecialTokens) ids.push(...after);
  }

  decode(ids: readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    const stream = this.decodeStream(options);
    return ids.map((id) => stream.push(id)).join("") + stream.flush();
  }

  decodeStream({ skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {}) {
    const decoder: TokenDecoder = createTokenDecoder(this.#parts.decoder);
    const push = (id: number) => {
      const token = this.tokenText(id);
      const isSkipped = token === null || (skipSpecialTokens && this.isSpecial(id));
      return isSkipped ? "" : decoder.push(token);
    };
    return { push, flush: () => decoder.flush() };
  }

  tokenText(id: number): string | null {
    return this.#tokens[id] ?? null;
  }

  tokenId(token: string): number | null {
    return this.#addedIds.get(token) ?? this.#parts.model.vocab.get(token) ?? null;
  }

  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  tokenBytes(id: number): Uint8Array {
    const token = this.tokenText(id);
    return token === null ? new Uint8Array() : bytesOfToken(this.#parts.decoder, token);
  }

  pieceBytes(id: number, isFirst: boolean): Uint8Array {
    const { decoder } = this.#parts;
    const token = this.tokenText(id);
    return token === null ? new Uint8Array() : bytesOfPiece(decoder, token, isFirst);
  }

  #add(content: string, id: number): void {
    if (!isTokenId(id)) {
      throw new CheckpointError(
        `Cannot read the tokenizer: the id of ${shown(content)} must be an integer from 0 to ` +
          `${MAX_TOKENS - 1}: current value is ${shown(id)}`,
      );
    }
    this.#tokens[id] = content;
    this.#addedIds.set(content, id);
  }

  *#sectionSteps(
    text: string,
    isFirst: boolean,
    splitters: Splitters,
    ids: number[],
  ): Generator<void> {
    let isStart = isFirst;
    for (const section of splitters.normalized.split(text)) {
      if ("token" in section) ids.push(section.token.id);
      else yield* this.#wordSteps(section.text, isStart, ids);
      isStart = false;
    }
  }

  *#wordSteps(text: string, isFirst: boolean, ids: number[]): Generator<void> {
    const words = this.#parts.preTokenize(text, isFirst);
    for (const [i, word] of words.entries()) {
      this.#bpe.encodeWord(word, ids);
      if (i % WORDS_A_TURN === WORDS_A_TURN - 1) yield;
    }
  }
}

function splittersOf(
  tokens: readonly AddedToken[],
  normalize: (text: string) => string,
): Splitters {
  return {
    raw: new AddedTokenSplitter(tokens.filter(({ normalized }) => !normalized)),
    normalized: new AddedTokenSplitter(tokens.filter(({ normalized }) => normalized), normalize),
  };
}
