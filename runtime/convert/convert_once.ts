/** For a test: converts, and stands still when a phase is so far, until it is killed. */
import fs from "node:fs";
import process from "node:process";
import { convertModel } from "./convert.ts";

const [source, destination, phase, share, options] = process.argv.slice(2);

await convertModel(source, destination, {
  ...JSON.parse(options),
  onProgress(progress) {
    if (progress.phase !== phase || progress.done! < Number(share) * progress.total!) return;
    fs.writeSync(1, "standing\n");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});
