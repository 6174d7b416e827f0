/** Places of the project itself. */
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The project's folder. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** The command line's entry point. */
export const CLI = path.join(ROOT, "cli.ts");
