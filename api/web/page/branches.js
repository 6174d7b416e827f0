/**
 * A conversation is a tree of messages: editing a question or asking for another answer adds a branch,
 * and none is ever lost. What is shown is one path through it, from the start to a leaf.
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {string | null} parentId Null for a conversation's first messages.
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {number} createdMs
 * @property {number} updatedMs The later version wins where two windows hold one.
 * @property {string} [finishReason]
 * @property {string} [error]
 * @property {object} [statistics]
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {string} system The system prompt, or "".
 * @property {number} createdMs
 * @property {number} updatedMs
 * @property {number} headMs When title or system prompt were last changed.
 * @property {Record<string, Message>} messages By id, in the order in which they were made.
 * @property {Record<string, string>} selected By parent's id: the child that is shown.
 */

/** Stands for the parent of first messages among the keys of `selected`. */
const START = "start";

const MOST_TITLE_CHARACTERS = 60;

/** @returns {Conversation} */
export function newConversation(system = "", nowMs = Date.now()) {
  return {
    id: crypto.randomUUID(),
    title: "",
    system,
    createdMs: nowMs,
    updatedMs: nowMs,
    headMs: nowMs,
    messages: {},
    selected: {},
  };
}

/**
 * Adds a message and shows it.
 *
 * @param {Conversation} conversation
 * @param {Pick<Message, "parentId" | "role" | "content">} message
 * @returns {Message}
 */
export function addMessage(conversation, { parentId, role, content }, nowMs = Date.now()) {
  const message = {
    id: crypto.randomUUID(),
    parentId,
    role,
    content,
    createdMs: nowMs,
    updatedMs: nowMs,
  };
  conversation.messages[message.id] = message;
  conversation.selected[parentId ?? START] = message.id;
  conversation.updatedMs = nowMs;
  if (conversation.title === "" && role === "user") conversation.title = titleOf(content);
  return message;
}

/** A first line, cut between words. */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].trim().replaceAll(/\s+/g, " ");
  if (line.length <= MOST_TITLE_CHARACTERS) return line;
  const cut = line.slice(0, MOST_TITLE_CHARACTERS);
  const space = cut.lastIndexOf(" ");
  return `${space < MOST_TITLE_CHARACTERS / 2 ? cut : cut.slice(0, space)}…`;
}

/** @returns {Message[]} What is shown, from the first message to the last. */
export function pathOf(conversation) {
  const path = [];
  const seen = new Set();
  let parent = START;
  for (;;) {
    const message = shownChild(conversation, parent);
    if (message === undefined || seen.has(message.id)) return path;
    seen.add(message.id);
    path.push(message);
    parent = message.id;
  }
}

function shownChild(conversation, parent) {
  const selected = conversation.messages[conversation.selected[parent]];
  if (selected !== undefined && (selected.parentId ?? START) === parent) return selected;
  return childrenOf(conversation, parent).at(-1);
}

function childrenOf(conversation, parent) {
  return Object.values(conversation.messages)
    .filter((message) => (message.parentId ?? START) === parent)
    .sort((a, b) => a.createdMs - b.createdMs);
}

/** @returns {string[]} Ids of a message and its alternatives, oldest first. */
export function siblingsOf(conversation, id) {
  const { parentId } = conversation.messages[id];
  return childrenOf(conversation, parentId ?? START).map((message) => message.id);
}

/** Shows a message in place of its alternatives. */
export function select(conversation, id) {
  conversation.selected[conversation.messages[id].parentId ?? START] = id;
}

/** Messages from the start down to one of them, that one included. */
export function ancestryOf(conversation, id) {
  const path = [];
  for (let at = conversation.messages[id]; at !== undefined && !path.includes(at);) {
    path.unshift(at);
    at = conversation.messages[at.parentId];
  }
  return path;
}

/**
 * Both of two windows' versions of one conversation: all messages of both, the later version of each.
 * Where they show different branches, `ours` decides.
 *
 * @param {Conversation} stored
 * @param {Conversation} ours
 * @returns {Conversation}
 */
export function merge(stored, ours) {
  const messages = { ...stored.messages };
  for (const [id, message] of Object.entries(ours.messages)) {
    if (!(messages[id]?.updatedMs > message.updatedMs)) messages[id] = message;
  }
  const head = stored.headMs > ours.headMs ? stored : ours;
  return {
    ...ours,
    title: head.title,
    system: head.system,
    headMs: head.headMs,
    updatedMs: Math.max(stored.updatedMs, ours.updatedMs),
    messages,
    selected: { ...stored.selected, ...ours.selected },
  };
}

/** True if every word of a query is in the title or in some message. */
export function matches(conversation, query) {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return true;
  const texts = Object.values(conversation.messages).map((message) => message.content);
  const all = [conversation.title, ...texts].join("\n").toLowerCase();
  return words.every((word) => all.includes(word));
}
