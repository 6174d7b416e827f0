/** What a `zig` template may hold: text, numbers, or lists whose items become lines. */
export type Fragment = string | number | boolean | readonly Fragment[];

/**
 * Template tag for Zig source that keeps indentation: the common indentation of the literal is
 * removed, and a fragment of several lines is indented as far as its placeholder is. A placeholder
 * alone on its line that is empty ("" or []) leaves no line behind.
 */
export function zig(parts: TemplateStringsArray, ...fragments: Fragment[]): string {
  const literal = dedent(parts.raw);
  let out = literal[0];
  fragments.forEach((fragment, i) => {
    const text = render(fragment);
    const after = literal[i + 1];
    const column = out.slice(out.lastIndexOf("\n") + 1);
    const alone = /^\s*$/.test(column) && /^\s*(\n|$)/.test(after);
    if (alone && text === "") {
      out = out.slice(0, out.length - column.length);
      out += after.replace(/^[^\n]*\n?/, "");
      return;
    }
    const indent = /^\s*/.exec(column)![0];
    out += text.replaceAll(/\n(?!\n|$)/g, `\n${indent}`) + after;
  });
  return out;
}

function render(fragment: Fragment): string {
  if (Array.isArray(fragment)) {
    return fragment.map(render).filter((text) => text !== "").join("\n");
  }
  return String(fragment).replace(/\n$/, "");
}

/** Drops the first line break, the last line's spaces, and the indentation that all lines share. */
function dedent(parts: readonly string[]): string[] {
  const marker = "\u0000";
  const lines = parts.join(marker).replace(/^\n/, "").replace(/\n[ \t]*$/, "\n").split("\n");
  const indents = lines.filter((line) => line.trim() !== "").map((line) =>
    /^ */.exec(line)![0].length
  );
  const common = Math.min(...indents);
  return lines.map((line) => line.slice(Math.min(common, line.length))).join("\n").split(marker);
}
