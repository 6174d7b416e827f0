/** Installs node-llama-cpp with npm, and talks to a process that runs it. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import readline from "node:readline";
import { fileURLToPath } from "node:url";
import { cacheDirectory } from "../../kernels/cache.ts";
import type { PeerRequest, PeerStart, PeerTimes } from "./llama_cpp.ts";

/** The version that is measured, so that everybody repeats the same. */
export const PACKAGE_VERSION = "3.22.1";

const SCRIPT = fileURLToPath(new URL("llama_cpp.ts", import.meta.url));

/**
 * A folder of its own in Trilith's cache, with the package and its ready-made library for this
 * machine: not a dependency of this project.
 *
 * @throws {Error} If npm is not there or can't install it.
 */
export function installPeer(onMessage: (message: string) => void): string {
  const folder = cacheDirectory("tools");
  const prefix = path.join(folder, `node-llama-cpp-${PACKAGE_VERSION}`);
  if (fs.existsSync(path.join(prefix, "complete"))) return prefix;
  fs.mkdirSync(prefix, { recursive: true });
  onMessage(`Installing node-llama-cpp ${PACKAGE_VERSION} with npm, once`);
  for (const name of ["node-llama-cpp", `@node-llama-cpp/${binaryPlatform()}`]) {
    npmInstall(prefix, `${name}@${PACKAGE_VERSION}`);
  }
  fs.writeFileSync(path.join(prefix, "complete"), "");
  return prefix;
}

/** By itself npm would install the libraries of all graphics cards too: 700 MB. */
function npmInstall(prefix: string, what: string): void {
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"];
  const args = ["install", ...flags, "--prefix", prefix, what];
  const { status, stderr, error } = spawnSync(npm, args, { encoding: "utf8" });
  if (status === 0) return;
  const why = error?.message ?? stderr.trim().split("\n")[0];
  throw new Error(`Cannot install ${what} as npm failed: ${why}`);
}

/** As the packages with ready-made libraries are named. */
function binaryPlatform(): string {
  if (process.platform === "darwin") {
    return process.arch === "arm64" ? "mac-arm64-metal" : "mac-x64";
  }
  return `${process.platform === "win32" ? "win" : "linux"}-${process.arch}`;
}

/** A model that waits to be measured. */
export class Peer {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = readline.createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  /** @returns The peer, or why llama.cpp does not run this file. */
  static async start(
    folder: string,
    model: string,
    threads: number,
    contextSize: number,
  ): Promise<{ peer: Peer; build: string } | { problem: string }> {
    const runtime = process.versions.bun ? [] : ["run", "-A", "--node-modules-dir=manual"];
    const args = [...runtime, SCRIPT, folder, model, String(threads), String(contextSize)];
    const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "ignore"] });
    const peer = new Peer(child);
    const started = await peer.#read<PeerStart>();
    if (!("problem" in started)) return { peer, build: started.build };
    await peer.stop();
    return started;
  }

  /** @throws {Error} If the process has ended, or stops to work. */
  async measure(request: PeerRequest): Promise<PeerTimes> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const times = await this.#read<PeerTimes>();
    if ("problem" in times) throw new Error(times.problem);
    return times;
  }

  /** Ends the process. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }

  /** The next JSON line; what else a library prints is passed over. */
  async #read<T>(): Promise<T | { problem: string }> {
    while (true) {
      const { value, done } = await this.#lines.next();
      if (done) return { problem: "llama.cpp's process ended without an answer" };
      if (value.startsWith("{")) return JSON.parse(value);
    }
  }
}
