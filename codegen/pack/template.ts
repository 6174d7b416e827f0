import { BLOCK_ROWS, type TernaryLayout } from "../layouts/layout.ts";
import { zig } from "../writer.ts";

/** The exported function that packs a matrix in a layout. */
export function packSymbol(layout: TernaryLayout): string {
  return `trilith_pack_${layout.name}`;
}

/** What `kernels/zig/pack.zig` must know of a layout, and the exported function. */
function packer(layout: TernaryLayout): string {
  const { wordBits, groupFeatures, groupWords, sliceGroups, unitBlocks, laneRows, encode } =
    layout.native;
  return zig`
    /// Ternary matrices lie as codegen/layouts says of ${layout.name}.
    const Layout = struct {
        pub const Word = u${wordBits};
        pub const group_features = ${groupFeatures};
        pub const group_words = ${groupWords};
        pub const slice_groups = ${sliceGroups};
        pub const unit_blocks = ${unitBlocks};
        pub const lane_rows = [_]i32{ ${laneRows.join(", ")} };

        pub inline fn encode(codes: *const [${groupFeatures}]pack.Codes) [${groupWords}]@Vector(${BLOCK_ROWS}, u${wordBits}) {
            ${encode}
        }
    };

    /// Packs a matrix (n, k) of a pack.Kind in full. Returns 1 if a code is 3, else 0.
    pub export fn ${
    packSymbol(layout)
  }(team: *Team, kind: i32, source: [*]const u8, n: i32, k: i32, factor: f32, out: [*]u8) i32 {
        const matrix: pack.Matrix = .{ .bytes = source, .n = @intCast(n), .k = @intCast(k), .factor = factor };
        return @intFromBool(!pack.Packer(Layout).pack(team, @fromBackingInt(kind), matrix, out));
    }
  `;
}

/** A library that packs in a layout and does nothing else. */
export function packerSource(layout: TernaryLayout): string {
  return zig`
    //! Trilith: packs ternary matrices. Generated from codegen/pack/template.ts; do not edit.
    const host = @import("host.zig");
    const pack = @import("pack.zig");
    const Team = @import("team.zig").Team;

    comptime {
        _ = host;
        _ = @import("sketch.zig");
    }

    ${packer(layout)}
  `;
}
