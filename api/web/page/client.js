/** What the page asks of the server. All of it is on the page's own origin. */
import { eventsOf } from "./sse.js";

/** The server's refusal, or its silence. */
export class RequestError extends Error {
  name = "RequestError";

  /** @param {number} status HTTP status, or 0 if there was no answer. */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class Client {
  #apiKey;

  /** @param {() => string} apiKey Asked anew for every request. */
  constructor(apiKey) {
    this.#apiKey = apiKey;
  }

  /**
   * @returns {Promise<string | null>} What the server is at, or null if it is ready.
   */
  async health() {
    const response = await this.#fetch("health");
    if (response.ok) return null;
    if (response.status !== 503) throw await failureOf(response);
    return stageOf(await response.text());
  }

  /** @returns {Promise<string[]>} Names of models. */
  async models() {
    const { data } = await this.#json("v1/models");
    return data.map(({ id }) => id);
  }

  /** What the server does where a request says nothing; null where it does not tell. */
  async props() {
    try {
      return await this.#json("props");
    } catch (error) {
      if (error.status === 404 || error.status === 403) return null;
      throw error;
    }
  }

  /**
   * @param {object} body Of a chat completion.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<object>} Its chunks.
   * @throws {RequestError} If it is refused, fails in the middle, or ends before it is complete.
   */
  chat(body, signal) {
    return this.#stream("v1/chat/completions", body, signal);
  }

  /**
   * Goes on in the middle of an answer: a completion of the text that the model had then, as token ids
   * so that nothing is added to it.
   *
   * @param {object[]} messages Before the answer.
   * @param {string} begun The answer so far.
   * @param {object} fields Of a completion, without its prompt.
   * @param {AbortSignal} signal
   */
  async *resume(messages, begun, fields, signal) {
    const { prompt } = await this.#json("apply-template", post({ messages }, signal));
    const content = prompt + begun;
    const tokenize = { content, add_special: false, parse_special: true };
    const { tokens } = await this.#json("tokenize", post(tokenize, signal));
    yield* this.#stream("v1/completions", { ...fields, prompt: tokens }, signal);
  }

  async *#stream(path, body, signal) {
    const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await this.#fetch(path, post(streamed, signal));
    if (!response.ok) throw await failureOf(response);
    for await (const data of eventsOf(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error !== undefined) throw new RequestError(chunk.error.message, response.status);
      yield chunk;
    }
    throw new RequestError("The server ended the connection in the middle of the answer");
  }

  async #json(path, init) {
    const response = await this.#fetch(path, init);
    if (!response.ok) throw await failureOf(response);
    return await response.json();
  }

  async #fetch(path, { headers, ...init } = {}) {
    const key = this.#apiKey();
    const authorization = key === "" ? {} : { authorization: `Bearer ${key}` };
    try {
      // Relative to the page, which may lie behind a proxy's prefix.
      return await fetch(new URL(path, document.baseURI), {
        ...init,
        headers: { ...headers, ...authorization },
        cache: "no-store",
        credentials: "same-origin",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new RequestError("The server can't be reached");
    }
  }
}

function post(body, signal) {
  const headers = { "content-type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

async function failureOf(response) {
  return new RequestError(await messageOf(response), response.status);
}

async function messageOf(response) {
  const { error } = parsed(await response.text().catch(() => ""));
  if (typeof error?.message === "string") return error.message;
  return `The server answered ${response.status} ${response.statusText}`.trim();
}

/** Nothing where it is not ours: a proxy's page, perhaps. */
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** From the body of a `/health` that is not well. */
function stageOf(text) {
  const { status, error, progress } = parsed(text);
  if (status !== "loading") return error?.message ?? "The server is not ready";
  const { message, done, total } = progress ?? {};
  const share = total > 0 ? ` (${Math.floor((100 * done) / total)} %)` : "";
  return message === undefined
    ? "The model is loading"
    : `The model is loading: ${message}${share}`;
}
