export function escaped(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
  };
  return text.replaceAll(/[&<>"]/g, (character) => entities[character]);
}

/** Text with `code` in it. */
export function prose(text = ""): string {
  return escaped(text).replaceAll(/`([^`]+)`/g, "<code>$1</code>");
}
