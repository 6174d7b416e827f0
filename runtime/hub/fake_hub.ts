/**
 * A server on this machine that answers as the hub does: revisions, trees in pages, small files
 * itself, large ones by a redirect to storage at another origin. Faults are put in for tests.
 */
import { createHash } from "node:crypto";
import http from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeFile {
  content: Uint8Array;
  /** Large files are stored elsewhere, as LFS has it. */
  isLarge?: boolean;
}

export interface FakeRepo {
  files: Record<string, FakeFile>;
  commit?: string;
  branches?: Record<string, string>;
  /** Fields of listed files that a test wants otherwise. */
  listed?: Record<string, unknown>;
}

export interface Seen {
  origin: "hub" | "storage";
  path: string;
  range: string | null;
  authorization: string | null;
}

/** May answer in place of the server. Returns true if it has. */
export type Fault = (
  seen: Seen,
  response: http.ServerResponse,
  content: Uint8Array | null,
) => boolean | Promise<boolean>;

export const COMMIT_A = "a".repeat(40);
export const COMMIT_B = "b".repeat(40);

export class FakeHub implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly repos = new Map<string, FakeRepo>();
  fault: Fault = () => false;
  pageSize = 1000;
  /** A token that the hub wants to see, if any. */
  wantedToken: string | null = null;
  #hub!: http.Server;
  #storage!: http.Server;

  static async start(repos: Record<string, FakeRepo>): Promise<FakeHub> {
    const fake = new FakeHub();
    for (const [name, repo] of Object.entries(repos)) fake.repos.set(name, repo);
    fake.#hub = await listening((request, response) => fake.#answer("hub", request, response));
    fake.#storage = await listening((request, response) =>
      fake.#answer("storage", request, response)
    );
    return fake;
  }

  get endpoint(): string {
    return originOf(this.#hub);
  }

  get storage(): string {
    return originOf(this.#storage);
  }

  /** Requests for the content of files. */
  get transfers(): Seen[] {
    return this.seen.filter(({ path }) => /\/(resolve|object)\//.test(path));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    }
  }

  async #answer(
    origin: Seen["origin"],
    request: http.IncomingMessage,
    response: http.ServerResponse,
  ): Promise<void> {
    const seen: Seen = {
      origin,
      path: request.url ?? "",
      range: request.headers.range ?? null,
      authorization: request.headers.authorization ?? null,
    };
    this.seen.push(seen);
    response.on("error", () => {});
    const content = origin === "storage" ? this.#stored(seen.path) : null;
    if (await this.fault(seen, response, content)) return;
    if (origin === "storage") return sendContent(response, seen.range, content);
    if (this.wantedToken !== null && seen.authorization !== `Bearer ${this.wantedToken}`) {
      return sendError(response, 401, "RepoNotFound");
    }
    this.#route(seen, response);
  }

  #route(seen: Seen, response: http.ServerResponse): void {
    const { pathname, searchParams } = new URL(seen.path, this.endpoint);
    const [, api, repoName, rest] =
      /^\/(api\/models\/)?([^/]+\/[^/]+)\/(.*)$/.exec(decodeURI(pathname)) ?? [];
    const repo = this.repos.get(repoName);
    if (repo === undefined) return sendError(response, 401, "RepoNotFound");
    const [, kind, revision, path] = /^(revision|tree|resolve)\/([^/]+)(?:\/(.*))?$/.exec(rest) ??
      [];
    const commit = commitOf(repo, decodeURIComponent(revision ?? ""));
    if (commit === null) return sendError(response, 404, "RevisionNotFound");
    if (api && kind === "revision") return sendJson(response, { id: repoName, sha: commit });
    if (api && kind === "tree") {
      return this.#tree(repo, response, pathname, Number(searchParams.get("cursor") ?? 0));
    }
    const file = repo.files[path ?? ""];
    if (kind !== "resolve" || file === undefined) return sendError(response, 404, "EntryNotFound");
    response.setHeader("x-repo-commit", commit);
    if (!file.isLarge) {
      response.setHeader("etag", `"${etagOf(file)}"`);
      return sendContent(response, seen.range, file.content);
    }
    response.writeHead(302, {
      location: `${this.storage}/object/${etagOf(file)}?signature=secret`,
      "x-linked-etag": `"${etagOf(file)}"`,
      "x-linked-size": String(file.content.length),
    });
    response.end("Found. Redirecting");
  }

  #tree(repo: FakeRepo, response: http.ServerResponse, path: string, cursor: number): void {
    const all = Object.entries(repo.files).map(([name, file]) => listed(name, file, repo));
    const end = cursor + this.pageSize;
    const link: Record<string, string> = end < all.length
      ? { link: `<${this.endpoint}${path}?recursive=true&cursor=${end}>; rel="next"` }
      : {};
    sendJson(response, all.slice(cursor, end), link);
  }

  #stored(path: string): Uint8Array | null {
    const [, etag] = /^\/object\/([0-9a-f]+)/.exec(path) ?? [];
    const files = [...this.repos.values()].flatMap(({ files }) => Object.values(files));
    return files.find((file) => etagOf(file) === etag)?.content ?? null;
  }
}

function commitOf(repo: FakeRepo, revision: string): string | null {
  const { commit = COMMIT_A, branches = {} } = repo;
  const commits = [commit, ...Object.values(branches)];
  if (commits.includes(revision)) return revision;
  return revision === "main" ? commit : branches[revision] ?? null;
}

function listed(path: string, file: FakeFile, { listed: changed = {} }: FakeRepo) {
  const { content, isLarge } = file;
  const size = content.length;
  const lfs = isLarge ? { oid: etagOf(file), size, pointerSize: 134 } : undefined;
  const oid = isLarge ? "f".repeat(40) : etagOf(file);
  return { type: "file", path, size, oid, ...(lfs && { lfs }), ...(changed[path] as object) };
}

/** SHA-256 of a large file, git's SHA-1 of a small one. */
export function etagOf({ content, isLarge }: FakeFile): string {
  const hash = isLarge
    ? createHash("sha256")
    : createHash("sha1").update(`blob ${content.length}\0`);
  return hash.update(content).digest("hex");
}

/** Answers a range as storage does. */
export function sendContent(
  response: http.ServerResponse,
  range: string | null,
  content: Uint8Array | null,
): void {
  if (content === null) return sendError(response, 404, "EntryNotFound");
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
  const start = Number(from ?? 0);
  const end = Math.min(content.length, Number(to ?? content.length - 1) + 1);
  const headers: Record<string, string> = { "content-length": String(end - start) };
  if (from !== undefined) headers["content-range"] = `bytes ${start}-${end - 1}/${content.length}`;
  response.writeHead(from === undefined ? 200 : 206, headers);
  response.end(content.subarray(start, end));
}

export function sendError(
  response: http.ServerResponse,
  status: number,
  code: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "x-error-code": code, ...headers });
  response.end(code);
}

function sendJson(
  response: http.ServerResponse,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(200, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

async function listening(listener: http.RequestListener): Promise<http.Server> {
  const server = http.createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

function originOf(server: http.Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Bytes that are not the same anywhere, so that a piece at a wrong place is seen. */
export function someBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function textFile(text: string): FakeFile {
  return { content: new TextEncoder().encode(text) };
}
