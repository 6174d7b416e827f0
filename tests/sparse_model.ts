/** Models in files far larger than what is written into them: the rest are holes, which read as zeros. */
import { open } from "node:fs/promises";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import type { ModelSpec } from "../codegen/model_spec.ts";
import { planOf } from "../codegen/plan.ts";
import { writeAll } from "../runtime/block_writer.ts";
import type { ModelConfig } from "../runtime/config.ts";
import { NO_FOLDS } from "../runtime/models/architecture.ts";
import { HEADER_BYTES } from "../runtime/packed_file.ts";
import { tensorNamesOf } from "../runtime/tensor_names.ts";
import { encodeTrilithHeader } from "../runtime/trilith/file.ts";
import { TOKENIZER } from "./made_models.ts";

/** Bytes at an offset. */
export type Piece = readonly [offset: number, bytes: Uint8Array];

/** A file of so many bytes in which only these pieces are written. */
export async function writeSparse(
  path: string,
  bytes: number,
  pieces: Iterable<Piece>,
): Promise<void> {
  await using handle = await open(path, "w");
  await handle.truncate(bytes);
  for (const [offset, piece] of pieces) await writeAll(handle, piece, offset);
}

/**
 * A .trilith file of which only these pieces of the packed data are written. Offsets are those of
 * `planOf`. Only data of 64 MiB or less must have its right checksum.
 */
export async function writeSparseModel(
  path: string,
  spec: ModelSpec,
  pieces: Iterable<Piece>,
  { layout = ROWS32 as TernaryLayout, tokenizer = JSON.stringify(TOKENIZER), checksum = 0 } = {},
): Promise<void> {
  const text = new TextEncoder().encode(tokenizer);
  const offset = HEADER_BYTES + planOf(spec, layout).totalBytes;
  const texts = [{ name: "tokenizer.json", offset, bytes: text.length }] as const;
  const header = encodeTrilithHeader(configOf(spec), layout, texts, checksum);
  await writeSparse(path, offset + text.length, [
    [0, header],
    ...[...pieces].map(([at, bytes]): Piece => [HEADER_BYTES + at, bytes]),
    [offset, text],
  ]);
}

function configOf(spec: ModelSpec): ModelConfig {
  return {
    spec,
    name: "sparse",
    modelType: "llama",
    task: "generate",
    embedding: { pooling: "last", normalize: false },
    ropeTheta: 10000,
    ropeScaling: null,
    localRope: null,
    folds: NO_FOLDS,
    maxPositionEmbeddings: 4096,
    quantization: { kind: "ternary", scales: "row", groupSize: null, scaleType: "f32" },
    tensorNames: tensorNamesOf({}, new Map(), spec.tieWordEmbeddings),
    bosTokenId: null,
    eosTokenIds: [],
    notes: [],
  };
}
