/** The hub, the network or its cache did not give a model; the message says why and what to do. */
export class HubError extends Error {
  override name = "HubError";
}

const REASONS: Record<string, string> = {
  EACCES: "it can't be written by this user",
  EPERM: "it can't be written by this user",
  EROFS: "its file system is read-only",
  ENOSPC: "its file system is full, what was fetched is kept",
  EDQUOT: "this user's quota of disk space is used up, what was fetched is kept",
  ENOTDIR: "a part of its path is a file",
  EEXIST: "a part of its path is a file",
  EFBIG: "its file system does not take files of that size",
  EIO: "its disk reports errors",
};

/** What the file system says of the hub's cache as HubError, all else as it is. */
export function asCacheError(folder: string, error: unknown): unknown {
  const { code } = error as { code?: string };
  const reason = code === undefined ? undefined : REASONS[code];
  if (reason === undefined) return error;
  return new HubError(
    `Cannot write in the hub's cache ${folder}: ${reason} (${code}), make room there or ` +
      `set HF_HOME to another folder`,
    { cause: error },
  );
}
