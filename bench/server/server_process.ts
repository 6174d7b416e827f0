/** `trilith serve` as a process of its own, on loopback, for benchmarks and tests. */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const CLI = fileURLToPath(new URL("../../cli.ts", import.meta.url));
const RUNTIME = process.versions.bun ? [] : ["run", "-A"];
/** Where the server listens, as it says itself. */
const ADDRESS = /https?:\/\/(?:127\.0\.0\.1|\[::1\]|localhost):\d+/;
/** Packing and compiling take a minute at most; this only ends what hangs. */
const START_MS = 180_000;

export interface ServerOptions {
  /** Flags of `serve`. A free port is taken unless they name one. */
  args?: readonly string[];
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** A program with its arguments that runs the server's: a shell that sets limits. */
  under?: readonly string[];
}

/** A server that runs. Disposing kills it. */
export class ServerProcess implements AsyncDisposable {
  /** All that it has written. */
  output = "";
  readonly child: ChildProcess;
  /** Exit status, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  #url: string | null = null;

  private constructor(child: ChildProcess) {
    this.child = child;
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8").on("data", (text: string) => this.output += text);
    }
    this.ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve(code ?? signal!));
    });
  }

  /** Starts one, and does not wait for it. */
  static spawn({ args = [], env = {}, under = [] }: ServerOptions = {}): ServerProcess {
    const port = args.some((arg) => arg === "--port" || arg === "--socket") ? [] : ["--port", "0"];
    const [program, ...rest] = [
      ...under,
      ...[process.execPath, ...RUNTIME, CLI, "serve"],
      ...[...port, ...args],
    ];
    // Coverage of what is killed can't be written, and would be told on standard error.
    const { DENO_COVERAGE_DIR: _, ...inherited } = process.env;
    return new ServerProcess(spawn(program, rest, {
      env: { ...inherited, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    }));
  }

  /** @throws {Error} If it ends, or does not get ready in time. */
  static async start(options?: ServerOptions): Promise<ServerProcess> {
    const server = ServerProcess.spawn(options);
    try {
      await server.ready();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Of the server, without a slash at its end. */
  get url(): string {
    if (this.#url === null) throw new Error(`The server has not said where it is: ${this.output}`);
    return this.#url;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /**
   * Until the model is loaded.
   *
   * @param url Where it will be, if it can't say so itself.
   */
  async ready(url: string | null = null): Promise<void> {
    this.#url ??= url;
    const end = performance.now() + START_MS;
    while (performance.now() < end) {
      if (!this.isRunning) throw new Error(`The server ended: ${this.output}`);
      this.#url ??= ADDRESS.exec(this.output)?.[0] ?? null;
      if (this.#url !== null && await isHealthy(this.#url)) return;
      await sleep(20);
    }
    throw new Error(`The server is not ready after ${START_MS / 1000} s: ${this.output}`);
  }

  /** Sends a signal. `child.kill` would make Deno report that signal as what ended the process. */
  signal(name: "SIGTERM" | "SIGKILL"): void {
    process.kill(this.child.pid!, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) this.signal("SIGKILL");
    await this.ended;
  }
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health`);
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
