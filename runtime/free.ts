/**
 * Gives the memory of large views back at once: a collector finds it late, when there are hundreds of
 * megabytes of it. Nothing may use another view of the same buffer any more.
 */
export function free(...views: readonly Uint8Array[]): void {
  for (const { buffer } of views) {
    if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
  }
}
