/** Prints what the web chat's files are, in whatever runs this. */
import { WEB_FILES } from "../api/web/files.ts";

console.log(JSON.stringify(WEB_FILES.map(({ path, etag }) => [path, etag])));
