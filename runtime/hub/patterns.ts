/** File patterns as huggingface_hub has them: `*` and `?` also stand for `/`, `[ab]` for a or b. */
import { UsageError } from "../errors.ts";

/** Whether a path fits a pattern. A pattern that ends with `/` is all that is below. */
export function patternMatcher(pattern: string): (path: string) => boolean {
  if (pattern === "") throw new UsageError("Cannot use an empty file pattern: give *.json or such");
  const whole = pattern.endsWith("/") ? `${pattern}*` : pattern;
  const source = whole.replace(/\[!?[^\]]+\]|[\s\S]/g, (part) => {
    if (part === "*") return "[^]*";
    if (part === "?") return "[^]";
    if (part.length > 1 && part.startsWith("[")) return characterSet(part);
    return escaped(part);
  });
  const expression = new RegExp(`^${source}$`, "u");
  return (path) => expression.test(path);
}

function characterSet(part: string): string {
  const isNegated = part.startsWith("[!");
  const inside = part.slice(isNegated ? 2 : 1, -1).replace(/[\\\]^[]/g, "\\$&");
  return `[${isNegated ? "^" : ""}${inside}]`;
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
