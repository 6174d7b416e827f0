/** The real thing, which takes a minute and 400 MB: a machine without Zig gets one. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { withEnvironment } from "../kernels/test_helpers.ts";
import { ensureZig, ZIG_VERSION } from "../kernels/toolchain.ts";
import { withFolder } from "./safetensors_file.ts";
import { IS_CI, testUnless } from "./tools.ts";

const isWanted = IS_CI || process.env.TRILITH_TEST_TOOLCHAIN === "1";

/** PATH without the folders that have a Zig. */
function pathWithoutZig(): string {
  return (process.env.PATH ?? "").split(path.delimiter)
    .filter((folder) => !["zig", "zig.exe"].some((name) => fs.existsSync(path.join(folder, name))))
    .join(path.delimiter);
}

testUnless(
  isWanted ? null : "it fetches 400 MB, set TRILITH_TEST_TOOLCHAIN=1",
  "toolchain: an empty cache fetches Zig once, with the user's package tools",
  async () => {
    await withFolder({}, (cache) => {
      const variables = { TRILITH_CACHE: cache, TRILITH_ZIG: undefined, PATH: pathWithoutZig() };
      return withEnvironment(variables, async () => {
        let fetches = 0;
        let last: number | undefined;
        // Nothing has arrived at first, perhaps for some seconds; a second fetch would begin anew.
        const onProgress = ({ done }: { done?: number }) => {
          if (done === 0 && last !== 0) fetches++;
          last = done ?? last;
        };
        // Two at once: one of them fetches, the other waits.
        const [first, second] = await Promise.all([
          ensureZig({ onProgress }),
          ensureZig({ onProgress }),
        ]);
        assert.equal(first.path, second.path);
        assert.equal(first.version, ZIG_VERSION);
        assert.ok(first.path.startsWith(cache));
        assert.equal(fetches, 1);
        assert.equal((await ensureZig({ onProgress })).source, "cache");
        assert.equal(fetches, 1);
      });
    });
  },
);
