/** Conversations as a file: what "Export" writes and "Import" reads. */

const FORMAT = "trilith-conversations";
const VERSION = 1;

/** @returns {string} JSON. */
export function exportText(conversations) {
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 2);
}

/**
 * @param {string} text
 * @returns {import("./branches.js").Conversation[]}
 * @throws {SyntaxError} If it is no such file.
 */
export function importText(text) {
  const file = parse(text);
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) {
    throw new SyntaxError(`Cannot import the file as it has no "format": "${FORMAT}"`);
  }
  if (file.version !== VERSION) {
    throw new SyntaxError(
      `Cannot import the file as its version must be ${VERSION}: current value is ${file.version}`,
    );
  }
  return file.conversations.map(readConversation);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`Cannot import the file as it is not JSON: ${error.message}`);
  }
}

/** Only the fields that we know, each checked: a file may come from anywhere. */
function readConversation(value, index) {
  const fail = (rule) => {
    throw new SyntaxError(`Cannot import conversation ${index + 1} as ${rule}`);
  };
  if (typeof value?.id !== "string" || value.id === "") fail("its id must be a text");
  if (!isRecord(value.messages)) fail("its messages must be an object");
  const messages = Object.values(value.messages).map((message) => readMessage(message, fail));
  const nowMs = Date.now();
  return {
    id: value.id,
    title: textOr(value.title, ""),
    system: textOr(value.system, ""),
    createdMs: numberOr(value.createdMs, nowMs),
    updatedMs: numberOr(value.updatedMs, nowMs),
    headMs: numberOr(value.headMs, nowMs),
    messages: Object.fromEntries(messages.map((message) => [message.id, message])),
    selected: isRecord(value.selected) ? onlyTexts(value.selected) : {},
  };
}

function readMessage(value, fail) {
  if (typeof value?.id !== "string" || typeof value.content !== "string") {
    fail("a message must have an id and content");
  }
  if (value.role !== "user" && value.role !== "assistant") {
    fail(`a message's role must be "user" or "assistant": current value is ${value.role}`);
  }
  const { finishReason, error, statistics } = value;
  const createdMs = numberOr(value.createdMs, Date.now());
  return {
    id: value.id,
    parentId: textOr(value.parentId, null),
    role: value.role,
    content: value.content,
    createdMs,
    updatedMs: numberOr(value.updatedMs, createdMs),
    ...(typeof finishReason === "string" && { finishReason }),
    ...(typeof error === "string" && { error }),
    ...(isRecord(statistics) && { statistics: onlyNumbers(statistics) }),
  };
}

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const textOr = (value, otherwise) => typeof value === "string" ? value : otherwise;
const numberOr = (value, otherwise) => Number.isFinite(value) ? value : otherwise;
const onlyTexts = (record) =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => typeof value === "string"));
const onlyNumbers = (record) =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => Number.isFinite(value)));

/** A file name that every system takes. */
export function fileNameOf(title) {
  const name = title.replaceAll(/[^\p{L}\p{N}]+/gu, "_").replaceAll(/^_+|_+$/g, "").slice(0, 40);
  return `${name === "" ? "conversation" : name}.json`;
}
