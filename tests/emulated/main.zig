//! Runs generated kernels outside a library, so that an emulator can run those of another CPU.
//!
//!     steps WEIGHTS ROPE BATCHES LOGITS max_tokens context kv_blocks threads vocabulary
//!
//! BATCHES: i32 words, each batch preceded by its length. LOGITS: float32, appended in order.
const std = @import("std");
const kernels = @import("kernels.zig");
const host = @import("host.zig");

const File = opaque {};
extern "c" fn fopen(path: [*:0]const u8, mode: [*:0]const u8) ?*File;
extern "c" fn fread(to: [*]u8, size: usize, count: usize, file: *File) usize;
extern "c" fn fwrite(from: [*]const u8, size: usize, count: usize, file: *File) usize;
extern "c" fn fseek(file: *File, offset: c_long, whence: c_int) c_int;
extern "c" fn ftell(file: *File) c_long;
extern "c" fn fclose(file: *File) c_int;
extern "c" fn atoi(text: [*:0]const u8) c_int;

fn readFile(path: [*:0]const u8) []align(64) u8 {
    const file = fopen(path, "rb") orelse std.process.exit(3);
    defer _ = fclose(file);
    _ = fseek(file, 0, 2);
    const size: usize = @intCast(ftell(file));
    _ = fseek(file, 0, 0);
    const memory: [*]align(64) u8 = @ptrCast(@alignCast(host.trilith_alloc(size) orelse std.process.exit(4)));
    if (fread(memory, 1, size, file) != size) std.process.exit(5);
    return memory[0..size];
}

pub export fn main(argc: c_int, argv: [*]const [*:0]const u8) c_int {
    if (argc != 10) return 2;
    const weights = readFile(argv[1]);
    const rope = readFile(argv[2]);
    const batches = readFile(argv[3]);
    const words: [*]const i32 = @ptrCast(batches.ptr);
    const vocabulary: usize = @intCast(atoi(argv[9]));
    const team = host.trilith_team_create(atoi(argv[8])) orelse return 6;
    const model = kernels.trilith_model_create(weights.ptr, @ptrCast(@alignCast(team)), atoi(argv[5]), atoi(argv[6]), atoi(argv[7]), @ptrCast(rope.ptr)) orelse return 7;
    const out = fopen(argv[4], "wb") orelse return 8;
    var at: usize = 0;
    while (at < batches.len / 4) {
        const length: usize = @intCast(words[at]);
        const batch = words + at + 1;
        const count: usize = @intCast(batch[2]);
        const logits: [*]f32 = @ptrCast(@alignCast(host.trilith_alloc(4 * vocabulary * count + 64) orelse return 9));
        _ = kernels.trilith_step(model, batch, logits);
        _ = fwrite(@ptrCast(logits), 4, vocabulary * count, out);
        at += 1 + length;
    }
    return fclose(out);
}
