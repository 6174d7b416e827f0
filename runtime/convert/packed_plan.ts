/** A model as one file that is mapped as it lies; see `runtime/trilith/file.ts`. */
import { open } from "node:fs/promises";
import type { TernaryLayout } from "../../codegen/layouts/layout.ts";
import { ROWS32 } from "../../codegen/layouts/rows32.ts";
import { ternaryWeights } from "../../codegen/model_spec.ts";
import { type PackedPlan, planOf } from "../../codegen/plan.ts";
import { LAYOUTS } from "../../codegen/ternary_linear/spec.ts";
import { bestKernel, compilePacker } from "../../kernels/choose.ts";
import { defaultThreads, detectCpu } from "../../kernels/cpu.ts";
import { writeAll } from "../block_writer.ts";
import type { CompanionName } from "../companions.ts";
import { shown, UsageError } from "../errors.ts";
import { type PackedStretch, packedStretch } from "../pack.ts";
import { HEADER_BYTES } from "../packed_file.ts";
import { openPacker, referencePacker, type TernaryPacker } from "../ternary_packer.ts";
import { CONFIG_NAME, dataChecksum, encodeTrilithHeader, type TextPlace } from "../trilith/file.ts";
import type { OnProgress } from "../types.ts";
import { type Part, type PlannedFile, whole } from "./plan.ts";
import { observed, type Source, type TernaryMatrix } from "./source.ts";

export interface PackedOptions {
  /** Name of a layout, or "auto" for that of this machine's best kernels. Default: rows32. */
  layout?: string;
  /** Told of each matrix before it is written. */
  onMatrix?: (matrix: TernaryMatrix) => void;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export interface PackedFilePlan extends Disposable {
  file: PlannedFile;
  layout: TernaryLayout;
  /** Completes the header of the written file. */
  seal(path: string): Promise<void>;
}

/** Texts that lie beside weights and are read again. */
const TEXTS: readonly CompanionName[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
  "chat_template.jinja",
  "modules.json",
  "1_Pooling/config.json",
  "config_sentence_transformers.json",
];

/** Smaller models are packed in less time than a packer takes to be compiled. */
const NATIVE_WEIGHTS = 50_000_000;

/** @throws {UsageError} If there is no such layout. */
export async function planPacked(
  source: Source,
  name: string,
  options: PackedOptions,
): Promise<PackedFilePlan> {
  const layout = await layoutOf(options);
  const packer = await packerOf(source, layout, options);
  const { config } = source;
  const plan = planOf(config.spec, layout);
  const texts = await textsOf(source, HEADER_BYTES + plan.totalBytes);
  const places = texts.map(({ name, offset, bytes }) => ({ name, offset, bytes: bytes.length }));
  const weights = options.onMatrix === undefined ? source : observed(source, options.onMatrix);
  const parts = [
    ...dataParts(weights, packer, plan),
    ...texts.map(({ name, offset, bytes }) => ({
      what: name,
      offset,
      bytes: bytes.length,
      content: bytes,
      chunks: () => whole(bytes),
    })),
  ];
  const last = parts[parts.length - 1];
  const head = (checksum: number | null) => encodeTrilithHeader(config, layout, places, checksum);
  return {
    layout,
    file: { name, head: head(null), parts, bytes: last.offset + last.bytes },
    async seal(path) {
      const handle = await open(path, "r+");
      try {
        await writeAll(handle, head(await dataChecksum(handle, plan.totalBytes)), 0);
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
    [Symbol.dispose]: () => packer[Symbol.dispose](),
  };
}

async function layoutOf({ layout: name, ...options }: PackedOptions): Promise<TernaryLayout> {
  if (name === undefined) return ROWS32;
  if (name === "auto") return (await bestKernel(options)).scheme.layout;
  const found = LAYOUTS.find((layout) => layout.name === name);
  if (found !== undefined) return found;
  throw new UsageError(
    `Cannot use --layout ${shown(name)}: give auto, ${LAYOUTS.map((each) => each.name).join(", ")}`,
  );
}

async function packerOf(
  { config: { spec } }: Source,
  layout: TernaryLayout,
  options: PackedOptions,
): Promise<TernaryPacker> {
  if (ternaryWeights(spec) < NATIVE_WEIGHTS) return referencePacker(layout);
  const { isa } = await bestKernel(options);
  const path = await compilePacker(layout, isa, options);
  return openPacker(path, layout, defaultThreads(detectCpu()));
}

interface Text {
  name: TextPlace["name"];
  offset: number;
  bytes: Uint8Array;
}

async function textsOf({ checkpoint }: Source, start: number): Promise<Text[]> {
  const found: [Text["name"], string][] = [[CONFIG_NAME, checkpoint.configText]];
  for (const name of TEXTS) {
    const text = await checkpoint.companions.text(name);
    if (text !== null) found.push([name, text]);
  }
  let offset = start;
  return found.map(([name, text]) => {
    const bytes = new TextEncoder().encode(text);
    offset += bytes.length;
    return { name, offset: offset - bytes.length, bytes };
  });
}

/** What stands before the layers, then each of them. */
function dataParts(
  { config: { spec }, weights }: Pick<Source, "config" | "weights">,
  packer: TernaryPacker,
  plan: PackedPlan,
): Part[] {
  const part = (what: string, start: number, bytes: number, stretch: PackedStretch): Part => ({
    what,
    offset: HEADER_BYTES + start,
    bytes,
    chunks: () => filled(packedStretch(spec, weights, packer, stretch), start, start + bytes),
  });
  const layers = Array.from({ length: spec.numHiddenLayers }, (_, layer) =>
    part(
      `layer ${layer}`,
      plan.layersOffset + layer * plan.layerBytes,
      plan.layerBytes,
      { first: layer, end: layer + 1 },
    ));
  return [part("what stands before the layers", 0, plan.layersOffset, "globals"), ...layers];
}

/** Parts in rising order, with zeros between them and up to the end. */
async function* filled(
  stretches: AsyncIterable<readonly { bytes: Uint8Array; offset: number }[]>,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  let at = start;
  for await (const parts of stretches) {
    for (const { bytes, offset } of parts) {
      yield new Uint8Array(offset - at);
      yield bytes;
      at = offset + bytes.length;
    }
  }
  yield new Uint8Array(end - at);
}
