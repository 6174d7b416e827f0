import { zig } from "./writer.ts";

/** How one allocation is shared out. Measuring and handing out are the same calls. */
export function carver(): string {
  return zig`
    /// Hands out parts of one allocation, each on a cache line of its own.
    const Carver = struct {
        base: ?[*]u8,
        used: usize = 0,

        fn take(carver: *Carver, comptime T: type, count: usize) [*]T {
            const start = carver.used;
            carver.used = std.mem.alignForward(usize, start + count * @sizeOf(T), 64);
            const base = carver.base orelse return @ptrFromInt(64);
            return @ptrCast(@alignCast(base + start));
        }
    };
  `;
}
