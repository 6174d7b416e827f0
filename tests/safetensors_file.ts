/** Writes safetensors files, sound and unsound, for tests of their reader. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export interface TestTensor {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

/** A file from its header text and data, whatever they say. */
export function rawFile(header: string, data: Uint8Array, headerLength?: bigint): Uint8Array {
  const headerBytes = new TextEncoder().encode(header);
  const file = new Uint8Array(8 + headerBytes.length + data.length);
  new DataView(file.buffer).setBigUint64(0, headerLength ?? BigInt(headerBytes.length), true);
  file.set(headerBytes, 8);
  file.set(data, 8 + headerBytes.length);
  return file;
}

/** A sound file that holds the tensors in their order. */
export function safetensorsFile(tensors: Readonly<Record<string, TestTensor>>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end += bytes.length] };
  }
  const data = new Uint8Array(end);
  let offset = 0;
  for (const { bytes } of Object.values(tensors)) {
    data.set(bytes, offset);
    offset += bytes.length;
  }
  return rawFile(JSON.stringify(header), data);
}

/** bfloat16 bytes of numbers that are bfloat16 values. */
export function bf16Bytes(values: readonly number[]): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Float32Array.from(values).buffer);
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

/** Runs `use` in a folder with these files, by their paths in it, and removes it. */
export async function withFolder<T>(
  files: Readonly<Record<string, string | Uint8Array>>,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "trilith-test-"));
  try {
    for (const [name, content] of Object.entries(files)) {
      const path = join(folder, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, content);
    }
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}
