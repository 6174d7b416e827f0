import { fileURLToPath } from "node:url";

/** Folder of the story model that comes with Trilith. */
export function embeddedModelFolder(): string {
  return fileURLToPath(new URL("../models/story", import.meta.url));
}
