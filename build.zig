//! For people who think in Zig: builds the kernels that `deno task emit` wrote, and tests the Zig that
//! is written by hand. Trilith itself calls `zig build-lib`, which needs no build system.
//!
//!     deno task emit                              writes build/kernels/*.zig
//!     zig build                                   the best kernels of this machine, in zig-out
//!     zig build -Dkernel=avx512-lookup -Drelease  others, optimised
//!     zig build -Dtarget=aarch64-linux -Dcpu=generic+dotprod
//!     zig build test                              unit tests of kernels/zig
//!     zig build fmt                               checks the format
const std = @import("std");

/// What generated kernels import, by name.
const vocabulary = [_][]const u8{ "floats.zig", "host.zig", "math.zig", "pack.zig", "profile.zig", "sketch.zig", "team.zig" };

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.standardOptimizeOption(.{ .preferred_optimize_mode = .fast });
    const kernel = b.option([]const u8, "kernel", "Which of build/kernels, where `deno task emit` writes them, such as avx512-multiply") orelse bestKernel(target.result);
    installKernels(b, kernel, target, optimize);
    addTests(b, target, optimize);
    const fmt = b.addFmt(.{ .paths = &.{ b.path("build.zig"), b.path("kernels/zig"), b.path("tests/golden") }, .check = true });
    b.step("fmt", "Check the format of hand-written and golden Zig").dependOn(&fmt.step);
}

/// The kernel that `codegen/ternary_linear/spec.ts` lists first for what the target can do.
fn bestKernel(target: std.Target) []const u8 {
    const cpu = target.cpu;
    if (cpu.arch == .x86_64) {
        if (cpu.has(.x86, .avx512bw) and cpu.has(.x86, .avx512vnni)) return "avx512-multiply";
        if (cpu.has(.x86, .avx2)) return "avx2-multiply";
    }
    if (cpu.arch == .aarch64) {
        return if (cpu.has(.aarch64, .dotprod)) "neon-dotprod-multiply" else "neon-multiply";
    }
    return "portable-multiply";
}

/// A shared library of one kernel, beside copies of the vocabulary that it imports.
fn installKernels(b: *std.Build, kernel: []const u8, target: std.Build.ResolvedTarget, optimize: std.lang.Optimize) void {
    const sources = b.addWriteFiles();
    for (vocabulary) |name| _ = sources.addCopyFile(b.path(b.fmt("kernels/zig/{s}", .{name})), name);
    const root = sources.addCopyFile(b.path(b.fmt("build/kernels/{s}.zig", .{kernel})), "kernels.zig");
    b.installArtifact(b.addLibrary(.{
        .name = b.fmt("trilith-{s}", .{kernel}),
        .linkage = .dynamic,
        // Zig's own backend leaves LLVM's intrinsics undefined.
        .use_llvm = true,
        .root_module = module(b, root, target, optimize),
    }));
}

fn addTests(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.lang.Optimize) void {
    const step = b.step("test", "Run the unit tests of kernels/zig");
    for (vocabulary) |name| {
        const root = b.path(b.fmt("kernels/zig/{s}", .{name}));
        const tests = b.addTest(.{ .name = name, .use_llvm = true, .root_module = module(b, root, target, optimize) });
        step.dependOn(&b.addRunArtifact(tests).step);
    }
}

fn module(b: *std.Build, root: std.Build.LazyPath, target: std.Build.ResolvedTarget, optimize: std.lang.Optimize) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = root,
        .target = target,
        .optimize = optimize,
        .pic = true,
        // Threads of a library on Linux need libc's; Windows has its own.
        .link_libc = target.result.os.tag != .windows,
    });
}
