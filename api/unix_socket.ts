import fs from "node:fs";
import net from "node:net";
import { ListenError } from "./place.ts";

/**
 * Removes a socket that a server left behind when it was killed.
 *
 * @throws {ListenError} If somebody listens on it, or it is no socket.
 */
export async function claimSocket(path: string): Promise<void> {
  const stats = fs.lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new ListenError(
      `Cannot listen on ${path} as it is a file, not a socket: give another path`,
    );
  }
  if (await isAnswered(path)) {
    throw new ListenError(`Cannot listen on ${path} as somebody listens there already`);
  }
  fs.unlinkSync(path);
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = net.connect(path);
    const end = (isThere: boolean) => {
      connection.destroy();
      resolve(isThere);
    };
    connection.once("connect", () => end(true)).once("error", () => end(false));
  });
}

/** Only its owner may connect. */
export function keepToOwner(path: string): void {
  fs.chmodSync(path, 0o600);
}

export function removeSocket(path: string): void {
  fs.rmSync(path, { force: true });
}
