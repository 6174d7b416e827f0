import assert from "node:assert/strict";
import type { TernaryLayout } from "../codegen/layouts/layout.ts";
import { ROWS32 } from "../codegen/layouts/rows32.ts";
import { packedKey } from "./packed_file.ts";
import { SHAPES } from "./shapes.ts";

Deno.test("packed file: another model, source or order of weights is another file", () => {
  const spec = SHAPES["bitnet-2b-4t"];
  // The same name and sizes, the first two bytes of every matrix the other way round.
  const swapped: TernaryLayout = {
    ...ROWS32,
    packRows(packed, ...rest) {
      ROWS32.packRows(packed, ...rest);
      [packed[0], packed[1]] = [packed[1], packed[0]];
    },
  };
  const sources = [
    { spec, layout: ROWS32, identity: "a" },
    { spec, layout: ROWS32, identity: "b" },
    { spec: SHAPES["bitnet-3b"], layout: ROWS32, identity: "a" },
    { spec, layout: swapped, identity: "a" },
  ];
  assert.equal(new Set(sources.map(packedKey)).size, sources.length);
  assert.equal(packedKey(sources[0]), packedKey({ ...sources[0] }));
});
