/**
 * `deno task emit [SHAPE]`: writes the generated Zig of a shape, one file a kernel, for `zig build`.
 *
 *     deno task emit bitnet-2b-4t && zig build -Dkernel=avx512-lookup -Drelease
 */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { kernelName, stepSource, TERNARY_KERNELS } from "../codegen/mod.ts";
import { SHAPES } from "../runtime/shapes.ts";

const FOLDER = fileURLToPath(new URL("../build/kernels", import.meta.url));

/**
 * Writes `build/kernels/<kernel>.zig` for every kernel.
 *
 * @returns The files' paths.
 * @throws {RangeError} If there is no such shape.
 */
function emit(shape: string): string[] {
  const spec = SHAPES[shape];
  if (spec === undefined) {
    throw new RangeError(
      `Cannot emit kernels as the shape must be one of ${
        Object.keys(SHAPES).join(", ")
      }: current value is ${shape}`,
    );
  }
  fs.mkdirSync(FOLDER, { recursive: true });
  return TERNARY_KERNELS.map((kernel) => {
    const file = path.join(FOLDER, `${kernelName(kernel)}.zig`);
    fs.writeFileSync(file, stepSource(spec, { kernel, kvType: "f16" }));
    return file;
  });
}

if (import.meta.main) {
  try {
    const files = emit(process.argv[2] ?? "bitnet-2b-4t");
    for (const file of files) console.log(path.relative(process.cwd(), file));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    console.error(error.message);
    process.exitCode = 2;
  }
}
