/** Writes a safetensors file tensor by tensor, so that a large one never is in memory as a whole. */
import { open } from "node:fs/promises";

/** A tensor whose bytes are a pattern's, over and over. */
export interface RepeatedTensor {
  name: string;
  dtype: "U8" | "BF16" | "F32";
  shape: readonly number[];
  pattern: Uint8Array;
}

const ELEMENT_BYTES = { U8: 1, BF16: 2, F32: 4 } as const;
const CHUNK_BYTES = 4 << 20;

/** The tensors in their order, after a header as safetensors has it. */
export async function writeTensors(
  file: string,
  tensors: readonly RepeatedTensor[],
): Promise<void> {
  const handle = await open(file, "w");
  try {
    await handle.writeFile(headerOf(tensors));
    for (const tensor of tensors) {
      for (const chunk of chunksOf(tensor)) await handle.writeFile(chunk);
    }
  } finally {
    await handle.close();
  }
}

function bytesOf({ dtype, shape }: RepeatedTensor): number {
  return shape.reduce((product, size) => product * size, ELEMENT_BYTES[dtype]);
}

function headerOf(tensors: readonly RepeatedTensor[]): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const tensor of tensors) {
    const start = end;
    end += bytesOf(tensor);
    header[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [start, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

function* chunksOf(tensor: RepeatedTensor): Generator<Uint8Array> {
  const { pattern } = tensor;
  const whole = repeated(pattern);
  for (let left = bytesOf(tensor); left > 0; left -= whole.length) {
    yield whole.subarray(0, Math.min(left, whole.length));
  }
}

/** The pattern as often as fits in a chunk, at least once. */
function repeated(pattern: Uint8Array): Uint8Array {
  const times = Math.max(1, Math.floor(CHUNK_BYTES / pattern.length));
  const bytes = new Uint8Array(pattern.length * times);
  for (let i = 0; i < times; i++) bytes.set(pattern, i * pattern.length);
  return bytes;
}
