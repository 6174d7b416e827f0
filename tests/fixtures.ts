/** Where the conformance data lies: shared/fixtures beside the project's folder. */
import { fileURLToPath } from "node:url";

const ROOT = new URL("../../shared/fixtures/", import.meta.url);

/** URL of a file or folder of the conformance data, for example `models/falcon3-158-packed`. */
export function fixtureUrl(path: string): URL {
  return new URL(path, ROOT);
}

/** As a path for `node:fs`. */
export function fixturePath(path: string): string {
  return fileURLToPath(fixtureUrl(path));
}
