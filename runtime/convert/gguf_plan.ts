/** A model as GGUF files: which keys and tensors each of them has. */
import { ggufArchitecture } from "./gguf_architectures.ts";
import { encodeGgufHeader, type GgufValue, placeTensors } from "./gguf_file.ts";
import { ggufKeys } from "./gguf_keys.ts";
import { ggufTensors, type PlannedTensor, type TensorOptions } from "./gguf_tensors.ts";
import type { PlannedFile } from "./plan.ts";
import type { Source } from "./source.ts";

export interface GgufOptions extends TensorOptions {
  /** tokenizer.ggml.pre. */
  pre?: string;
  /** Bytes that no file is to exceed, but for a single tensor that does. */
  splitMaxBytes?: number;
}

/**
 * @param name The file's name; those of several are made from it as llama.cpp's gguf-split does.
 * @throws {UnsupportedModelError} If no reader of such files would run the model as it is.
 */
export async function planGguf(
  source: Source,
  name: string,
  options: GgufOptions,
): Promise<PlannedFile[]> {
  const architecture = ggufArchitecture(source.config, options.type);
  const tensors = ggufTensors(source, architecture, options);
  const keys = await ggufKeys(source, architecture, options.type, options.pre);
  const groups = splitBySize(tensors, options.splitMaxBytes ?? Infinity);
  return groups.map((group, no) => {
    const values = groups.length === 1 ? keys : [
      ...(no === 0 ? keys : []),
      ...splitKeys(no, groups.length, tensors.length),
    ];
    return plannedFile(splitName(name, no, groups.length), values, group);
  });
}

function plannedFile(
  name: string,
  values: readonly GgufValue[],
  tensors: readonly PlannedTensor[],
): PlannedFile {
  const placed = placeTensors(tensors);
  const head = encodeGgufHeader(values, placed);
  const parts = placed.map(({ name: what, offset, bytes, chunks }) => ({
    what,
    offset: head.length + offset,
    bytes,
    chunks,
  }));
  const last = parts[parts.length - 1];
  return { name, head, parts, bytes: last.offset + last.bytes };
}

function splitBySize(tensors: readonly PlannedTensor[], most: number): PlannedTensor[][] {
  const groups: PlannedTensor[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    if (size > 0 && size + tensor.bytes > most) {
      groups.push([]);
      size = 0;
    }
    groups[groups.length - 1].push(tensor);
    size += tensor.bytes;
  }
  return groups;
}

/** llama.cpp finds the other files by these names. */
function splitName(name: string, no: number, count: number): string {
  if (count === 1) return name;
  const five = (value: number) => String(value).padStart(5, "0");
  return `${name.replace(/\.gguf$/i, "")}-${five(no + 1)}-of-${five(count)}.gguf`;
}

function splitKeys(no: number, count: number, tensors: number): GgufValue[] {
  return [
    ["split.no", "uint16", no],
    ["split.count", "uint16", count],
    ["split.tensors.count", "int32", tensors],
  ];
}
