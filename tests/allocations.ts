/**
 * Watches how much is asked for at once by typed arrays and lists that are made by their length: what
 * a file's numbers reach when they are believed. What is copied from other arrays is as large as these.
 */

const TYPED = ["Uint8Array", "Int8Array", "Uint16Array", "Int16Array", "Uint32Array", "Int32Array"]
  .concat(["Float16Array", "Float32Array", "Float64Array", "BigUint64Array", "BigInt64Array"]);
/** A list's elements are pointers. */
const POINTER_BYTES = 8;

// deno-lint-ignore no-explicit-any -- classes of the global scope by name
const scope = globalThis as any;

export interface Allocations {
  /** Bytes of the largest one since this was set to 0. */
  largest: number;
}

/** Runs `use` with all such classes of the global scope watched. */
export async function withAllocations<T>(use: (seen: Allocations) => Promise<T>): Promise<T> {
  const seen: Allocations = { largest: 0 };
  const names = [...TYPED, "ArrayBuffer", "Array"];
  const originals = names.map((name) => scope[name]);
  for (const [i, name] of names.entries()) {
    const bytes = name === "Array" ? POINTER_BYTES : originals[i].BYTES_PER_ELEMENT ?? 1;
    scope[name] = watched(originals[i], bytes, seen);
  }
  try {
    return await use(seen);
  } finally {
    for (const [i, name] of names.entries()) scope[name] = originals[i];
  }
}

// deno-lint-ignore no-explicit-any
function watched(original: any, elementBytes: number, seen: Allocations): any {
  const note = (args: readonly unknown[]) => {
    const length = lengthOf(args);
    if (length * elementBytes > seen.largest) seen.largest = length * elementBytes;
  };
  const proxy: unknown = new Proxy(original, {
    construct(target, args, newTarget) {
      note(args);
      return Reflect.construct(target, args, newTarget === proxy ? target : newTarget);
    },
    apply(target, self, args) {
      note(args);
      return Reflect.apply(target, self, args);
    },
  });
  return proxy;
}

/** Elements that are made: as many as a number says, or another list has. */
function lengthOf([first, ...others]: readonly unknown[]): number {
  if (others.length > 0) return 0;
  if (typeof first === "number") return first;
  const { length } = Object(first ?? 0);
  return typeof length === "number" ? length : 0;
}
