/** Requests that the tests of this folder send. */
import assert from "node:assert/strict";
import http from "node:http";

export const CHAT = { model: "story", messages: [{ role: "user", content: "A dog and a cat." }] };

export function post(url: string, path: string, body: unknown, signal?: AbortSignal) {
  return fetch(`${url}${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** A greedy answer: the same text wherever the model's bits are. */
export async function greedyText(url: string, maxTokens = 40): Promise<string> {
  const response = await post(url, "/v1/chat/completions", {
    ...CHAT,
    max_tokens: maxTokens,
    temperature: 0,
    ignore_eos: true,
  });
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  return body.choices[0].message.content;
}

export interface SocketStream {
  status: number;
  /** The text so far. */
  text: () => string;
  /** Resolves with the error that ended it, or null where it ended as it should. */
  ended: Promise<Error | null>;
}

/** A streamed chat over a Unix socket; resolves when its head is there. */
export function streamOver(socketPath: string, maxTokens: number): Promise<SocketStream> {
  return new Promise((resolve, reject) => {
    const request = http.request({
      socketPath,
      path: "/v1/chat/completions",
      method: "POST",
      headers: { "Content-Type": "application/json" },
    }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => text += part);
      const ended = new Promise<Error | null>((settle) => {
        response.once("error", settle);
        response.once("end", () => settle(null));
      });
      resolve({ status: response.statusCode!, text: () => text, ended });
    });
    request.once("error", reject);
    request.end(JSON.stringify({ ...CHAT, max_tokens: maxTokens, ignore_eos: true, stream: true }));
  });
}
