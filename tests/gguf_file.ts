/** Reads GGUF files as their specification says, slowly: to look at what was written. */
import assert from "node:assert/strict";

export interface ReadTensor {
  name: string;
  /** Innermost first. */
  dims: number[];
  type: number;
  offset: number;
}

export interface ReadGguf {
  values: Map<string, unknown>;
  tensors: ReadTensor[];
  /** Where the data begins. */
  data: number;
}

export function readGguf(bytes: Uint8Array): ReadGguf {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const text = () => {
    const length = u64();
    return new TextDecoder().decode(bytes.subarray(at, at += length));
  };
  const value = (type: number): unknown => {
    if (type === 9) {
      const items = u32();
      return Array.from({ length: u64() }, () => value(items));
    }
    if (type === 2) return view.getUint16((at += 2) - 2, true);
    if (type === 5) return view.getInt32((at += 4) - 4, true);
    if (type === 6) return view.getFloat32((at += 4) - 4, true);
    if (type === 7) return bytes[at++] === 1;
    return type === 8 ? text() : u32();
  };
  assert.equal(u32(), 0x46554747);
  assert.equal(u32(), 3);
  const tensorCount = u64();
  const values = new Map(Array.from({ length: u64() }, () => [text(), value(u32())]));
  const tensors = Array.from({ length: tensorCount }, (): ReadTensor => {
    const name = text();
    const dims = Array.from({ length: u32() }, u64);
    return { name, dims, type: u32(), offset: u64() };
  });
  return { values, tensors, data: Math.ceil(at / 32) * 32 };
}

/** The bytes of each tensor by its name; those that fill gaps belong to the tensor before them. */
export function tensorBytes(bytes: Uint8Array): Map<string, Uint8Array> {
  const { tensors, data } = readGguf(bytes);
  const inOrder = [...tensors].sort((a, b) => a.offset - b.offset);
  return new Map(inOrder.map(({ name, offset }, i) => {
    const end = inOrder[i + 1]?.offset ?? bytes.length - data;
    return [name, bytes.subarray(data + offset, data + end)];
  }));
}
