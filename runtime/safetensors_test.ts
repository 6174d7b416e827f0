import assert from "node:assert/strict";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { rawFile, safetensorsFile, withFolder } from "../tests/safetensors_file.ts";
import { CheckpointError, UnsupportedModelError } from "./errors.ts";
import { openSafetensors, type SafetensorsFile } from "./safetensors.ts";

async function withFile<T>(bytes: Uint8Array, use: (path: string) => Promise<T>): Promise<T> {
  return await withFolder(
    { "m.safetensors": bytes },
    (folder) => use(join(folder, "m.safetensors")),
  );
}

async function withOpen<T>(
  bytes: Uint8Array,
  use: (file: SafetensorsFile, path: string) => Promise<T>,
): Promise<T> {
  return await withFile(bytes, async (path) => {
    const file = await openSafetensors(path);
    try {
      return await use(file, path);
    } finally {
      await file.close();
    }
  });
}

/** Opens and reads all tensors; the error of ours that refused them, or null. Others are thrown. */
async function refusal(bytes: Uint8Array): Promise<Error | null> {
  try {
    await withOpen(bytes, async (file) => {
      for (const name of file.tensors.keys()) await file.read(name);
    });
    return null;
  } catch (error) {
    const isOurs = error instanceof CheckpointError || error instanceof UnsupportedModelError;
    if (!isOurs) throw error;
    assert.ok(error.message.length < 600 && !error.message.includes("\n"), error.message);
    return error;
  }
}

const random = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37 + 11) & 0xff);

const SOUND = {
  a: { dtype: "F32", shape: [2, 3], bytes: random(24) },
  b: { dtype: "U8", shape: [5], bytes: random(5) },
  scalar: { dtype: "BF16", shape: [], bytes: random(2) },
  empty: { dtype: "F16", shape: [0, 7], bytes: random(0) },
};

Deno.test("openSafetensors reads tensors, ranges and metadata", async () => {
  await withOpen(safetensorsFile(SOUND), async (file) => {
    assert.deepEqual([...file.tensors.keys()], ["a", "b", "scalar", "empty"]);
    assert.deepEqual(file.tensors.get("a")!.shape, [2, 3]);
    for (const [name, { bytes }] of Object.entries(SOUND)) {
      assert.deepEqual(await file.read(name), bytes);
    }
    assert.deepEqual(await file.readRange("a", 5, 7), SOUND.a.bytes.subarray(5, 12));
    assert.equal({ ...file.metadata }.format, "pt");
    await assert.rejects(file.readRange("a", 20, 5), RangeError);
    await assert.rejects(file.readRange("a", -1, 2), RangeError);
    await assert.rejects(file.read("c"), CheckpointError);
  });
});

Deno.test("a header may be padded with spaces, and a file may have no tensors", async () => {
  assert.equal(await refusal(rawFile("{}      ", random(0))), null);
});

const one = (entry: Record<string, unknown>) => JSON.stringify({ w: entry });
const entry = (change: Record<string, unknown>) =>
  one({ dtype: "U8", shape: [4], data_offsets: [0, 4], ...change });

const UNSOUND: readonly (readonly [what: string, file: Uint8Array, message: RegExp])[] = [
  ["an empty file", new Uint8Array(), /only 0 bytes/],
  ["seven bytes", random(7), /only 7 bytes/],
  ["a header longer than the file", rawFile("{}", random(0), 1000n), /claims 1000 bytes/],
  ["a header of 2^64 - 1 bytes", rawFile("{}", random(0), 2n ** 64n - 1n), /at most 100000000/],
  ["a header of no bytes", rawFile("", random(4)), /begin with a brace/],
  ["a header that is a list", rawFile("[]", random(0)), /begin with a brace/],
  ["a header that is no JSON", rawFile('{"a"', random(0)), /not valid JSON/],
  ["a header that is not UTF-8", rawFile("{}", random(0)).fill(0xff, 9), /not UTF-8/],
  ["deep nesting", rawFile('{"a":' + "[".repeat(5000), random(0)), /nests deeper/],
  [
    "a tensor twice",
    rawFile(entry({}).slice(0, -1) + "," + entry({}).slice(1), random(4)),
    /twice/,
  ],
  ["a tensor that is a number", rawFile('{"w": 1}', random(0)), /must be an object/],
  ["no dtype", rawFile(entry({ dtype: undefined }), random(4)), /dtype must be/],
  ["an invented dtype", rawFile(entry({ dtype: "toString" }), random(4)), /dtype must be/],
  ["a dtype that is not read", rawFile(entry({ dtype: "F8_E4M3" }), random(4)), /is F8_E4M3/],
  ["no shape", rawFile(entry({ shape: null }), random(4)), /shape must be/],
  ["a negative size", rawFile(entry({ shape: [-4] }), random(4)), /shape must be/],
  ["half a row", rawFile(entry({ shape: [0.5] }), random(4)), /shape must be/],
  ["2^53 rows", rawFile(entry({ shape: [2 ** 53] }), random(4)), /shape must be/],
  [
    "sizes whose product overflows",
    rawFile(entry({ shape: [2 ** 40, 2 ** 40] }), random(4)),
    /must fill/,
  ],
  [
    "sizes whose product wraps to 4",
    rawFile(entry({ shape: [2 ** 32 + 1, 4] }), random(4)),
    /must fill/,
  ],
  ["the wrong product", rawFile(entry({ shape: [5] }), random(4)), /must fill/],
  ["offsets that fall", rawFile(entry({ data_offsets: [4, 0] }), random(4)), /data_offsets/],
  ["three offsets", rawFile(entry({ data_offsets: [0, 2, 4] }), random(4)), /data_offsets/],
  ["negative offsets", rawFile(entry({ data_offsets: [-4, 0] }), random(4)), /data_offsets/],
  ["offsets beyond the file", rawFile(entry({}), random(3)), /cut short/],
  [
    "offsets far beyond the file",
    rawFile(entry({ shape: [2 ** 45], data_offsets: [0, 2 ** 45] }), random(4)),
    /cut short/,
  ],
  ["trailing bytes", rawFile(entry({}), random(5)), /trailing bytes/],
  ["a hole", rawFile(entry({ data_offsets: [1, 5] }), random(5)), /hole/],
  ["metadata of numbers", rawFile('{"__metadata__": {"a": 1}}', random(0)), /__metadata__/],
  [
    "an overlap",
    rawFile(
      JSON.stringify({
        a: { dtype: "U8", shape: [4], data_offsets: [0, 4] },
        b: { dtype: "U8", shape: [4], data_offsets: [3, 7] },
      }),
      random(7),
    ),
    /overlaps/,
  ],
];

for (const [what, file, message] of UNSOUND) {
  Deno.test(`openSafetensors refuses ${what}`, async () => {
    assert.match((await refusal(file))?.message ?? "nothing refused", message);
  });
}

Deno.test("a file cut at any byte is refused", async () => {
  const whole = safetensorsFile(SOUND);
  for (let length = 0; length < whole.length; length++) {
    assert.ok(await refusal(whole.subarray(0, length)), `cut at ${length}`);
  }
});

Deno.test("any changed bytes of the header are an error or another sound file", async () => {
  const whole = safetensorsFile(SOUND);
  const headerEnd = whole.length - 31;
  const change = fc.tuple(fc.nat(headerEnd - 1), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const bytes = whole.slice();
      for (const [at, value] of changes) bytes[at] = value;
      await refusal(bytes);
    }),
    { numRuns: 300 },
  );
});

Deno.test("any header of plausible parts is an error or a sound file", async () => {
  const size = fc.oneof(
    fc.nat(9),
    fc.constantFrom(-1, 1.5, 2 ** 32, 2 ** 53, 2 ** 60, 1e308, NaN, null, "4", [], {}),
  );
  const tensor = fc.record({
    dtype: fc.constantFrom("U8", "F32", "BOOL", "I64", "x", "__proto__", null, 3),
    shape: fc.oneof(fc.array(size, { maxLength: 4 }), size),
    data_offsets: fc.oneof(fc.tuple(size, size), size),
  });
  const name = fc.constantFrom("a", "b", "__proto__", "__metadata__", "constructor", "");
  await fc.assert(
    fc.asyncProperty(fc.dictionary(name, tensor), fc.nat(40), async (header, length) => {
      await refusal(rawFile(JSON.stringify(header), random(length)));
    }),
    { numRuns: 300 },
  );
});

Deno.test("a file that shrinks while it is open is noticed", async () => {
  await withOpen(safetensorsFile(SOUND), async (file, path) => {
    await truncate(path, file.fileBytes - 4);
    assert.deepEqual(await file.read("a"), SOUND.a.bytes);
    await assert.rejects(file.read("b"), /ends at byte [0-9]+, it was cut while in use/);
  });
});

Deno.test("a missing file and a folder are refused in one line", async () => {
  await withFolder({}, async (folder) => {
    await assert.rejects(openSafetensors(join(folder, "no.safetensors")), /no such file/);
    await assert.rejects(openSafetensors(folder), /not a regular file/);
  });
});

Deno.test("a file name can't break the line of an error", async () => {
  await withFolder({}, async (folder) => {
    const path = join(folder, "a\nb\u001b[31m.safetensors");
    await writeFile(path, random(3));
    await assert.rejects(openSafetensors(path), (error: Error) => {
      // deno-lint-ignore no-control-regex
      assert.doesNotMatch(error.message, /[\u0000-\u001f]/);
      return error instanceof CheckpointError;
    });
  });
});
