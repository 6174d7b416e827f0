import { paddedRows } from "../layouts/layout.ts";
import { activationStride, paddedFloats } from "../norm_quantize/template.ts";
import { zig } from "../writer.ts";
import { factorBytes, factorElement, groupCount, groupFinish, groupInverses } from "./groups.ts";
import {
  type InputBuffer,
  linearSymbol,
  prepareSymbol,
  type Scheme,
  type Shape,
} from "./scheme.ts";

/** The quantised input of linears: int8 codes, 1 / their scale or scales, and what the scheme adds. */
export function inputBuffers(scheme: Scheme, k: number): InputBuffer[] {
  const { groups } = scheme;
  return [
    { name: "codes", type: "i8", elements: activationStride(k) },
    groups === undefined ? { name: "inverse", type: "f64", elements: 1 } : groupInverses(groups, k),
    ...scheme.inputBuffers(k),
  ];
}

/** What a file's linears have beside their codes. */
export interface LinearOptions {
  /** A factor for each output row instead of one for the matrix. */
  rowScales?: boolean;
}

/** Types and functions that all ternary linears of a file share. */
export function linearPrelude(scheme: Scheme, { rowScales = false }: LinearOptions = {}): string {
  const fields = inputBuffers(scheme, 0).map(({ name, type }) => `${name}: [*]${type},`);
  return zig`
    ${scalesOf(scheme, rowScales).linear}

    /// Inputs of all tokens: int8 codes, max |x| / 127, and what the linears read in the codes' place.
    const Quantized = struct {
        ${fields}
    };

    ${scheme.groups === undefined ? exactFinish(rowScales) : groupFinish(scheme.groups, rowScales)}

    ${scheme.prelude}
  `;
}

function exactFinish(rowScales: boolean): string {
  return zig`
    /// y = exact * (scale * inverse), rounded once, + bias for 16 rows of a token.
    inline fn finish(exact: math.I, linear: Linear, inverse: f64, row: usize, y: [*]f32) void {
        const wide: math.D = @floatFromInt(exact);
        ${rowScales ? ROW_SCALES.factor : ONE_SCALE.factor}
        var out: math.F = @floatCast(wide * factor);
        if (linear.bias) |bias| out += math.load(bias + row);
        math.store(y + row, out);
    }
  `;
}

/** How a file's linears keep the factor of a weight. */
interface Scales {
  /** The struct `Linear`. */
  linear: string;
  /** Fields of a bare linear, whose factors are 1 or follow the codes of `weights`. */
  bare: (codeBytes: number) => string;
}

/** @throws {RangeError} If rows are to have factors beside those of groups. */
function scalesOf({ groups }: Scheme, rowScales: boolean): Scales {
  const element = groups === undefined ? null : factorElement(groups);
  if (element === null) return rowScales ? ROW_SCALES : ONE_SCALE;
  if (rowScales) throw new RangeError("Cannot scale rows as their groups have factors");
  return {
    linear: zig`
      /// Type of a factor; bf16 is kept as its bits.
      const Factor = ${element};

      /// One ternary matrix: packed weights, the factors of their groups, [block][group][row], and a bias of
      /// one f32 a row.
      const Linear = struct { codes: [*]const u8, factors: [*]const Factor, bias: ?[*]const f32 };
    `,
    bare: (codeBytes) => `.factors = @ptrCast(@alignCast(weights + ${codeBytes}))`,
  };
}

const ONE_SCALE = {
  linear: zig`
    /// One ternary matrix: packed weights, the factor of a weight, and a bias of one f32 a row.
    const Linear = struct { codes: [*]const u8, scale: f32, bias: ?[*]const f32 };
  `,
  factor: "const factor: math.D = @splat(linear.scale * inverse);",
  bare: () => ".scale = 1",
};
const ROW_SCALES: typeof ONE_SCALE = {
  linear: zig`
    /// One ternary matrix: packed weights, the factor of a weight and a bias, one f32 a row each.
    const Linear = struct { codes: [*]const u8, scales: [*]const f32, bias: ?[*]const f32 };
  `,
  factor: "const factor = math.wide(f32, linear.scales + row) * @as(math.D, @splat(inverse));",
  bare: () => ".scales = &ones",
};

/** Zig: a linear of the codes, and factors of groups, that lie at `weights`; other factors are 1. */
export function bareLinear(scheme: Scheme, shape: Shape, rowScales = false): string {
  const scales = scalesOf(scheme, rowScales).bare(scheme.layout.packedBytes(shape.n, shape.k));
  return `.{ .codes = weights, ${scales}, .bias = null }`;
}

/** Bytes of a matrix's codes and, after them, the factors of its groups. */
export function matrixBytes({ layout, groups }: Scheme, { n, k }: Shape): number {
  return layout.packedBytes(n, k) + factorBytes(groups, { n, k });
}

/** What prepares inputs, for all k; then one linear a shape. */
export function linears(
  scheme: Scheme,
  shapes: readonly Shape[],
  options: LinearOptions = {},
): string {
  const ks = [...new Set(shapes.map((shape) => shape.k))];
  return [
    ...ks.map((k) => prepare(scheme, k)),
    ...uniqueShapes(shapes).map((shape) => linear(scheme, shape, options)),
  ].join("\n");
}

export function uniqueShapes(shapes: readonly Shape[]): Shape[] {
  return [...new Map(shapes.map((shape) => [linearSymbol(shape), shape])).values()];
}

/** Bytes of one token's input, each array on cache lines of its own. */
export function inputBytes(scheme: Scheme, k: number): number {
  return inputBuffers(scheme, k).reduce((sum, buffer) => sum + bufferBytes(buffer), 0);
}

function bufferBytes({ type, elements }: InputBuffer): number {
  return Math.ceil(elements * ELEMENT_BYTES[type] / 64) * 64;
}

const ELEMENT_BYTES = { i8: 1, i16: 2, i32: 4, f32: 4, f64: 8 };

function prepare(scheme: Scheme, k: number): string {
  let bytes = 0;
  const places = inputBuffers(scheme, k).map((buffer) => {
    const place = `.${buffer.name} = @ptrCast(@alignCast(memory + tokens * ${bytes})),`;
    bytes += bufferBytes(buffer);
    return place;
  });
  return zig`
    /// From the codes of token t, what linears of ${k} features read.
    fn ${prepareSymbol(k)}(x: Quantized, t: usize) void {
        ${scheme.prepare(k)}
    }

    /// Inputs of ${k} features, each array in its part of tokens * ${bytes} bytes.
    fn inputIn_k${k}(memory: [*]u8, tokens: usize) Quantized {
        return .{
            ${places}
        };
    }
  `;
}

function linear(scheme: Scheme, shape: Shape, { rowScales = false }: LinearOptions): string {
  const { n, k } = shape;
  const symbol = linearSymbol(shape);
  const { groups } = scheme;
  const exact = `y[t, row] = scale${rowScales ? "[row]" : ""} * sum over k of W[row, k] * x[t, k]`;
  const meaning = groups === undefined ? exact : `${exact}, groups of ${groups.size} scaled`;
  return zig`
    /// ${meaning} for the rows of blocks first .. last.
    /// W: (${n}, ${k}) ternary. x: (tokens, ${k}) int8. y: (tokens, y_stride).
    fn ${symbol}(linear: Linear, x: Quantized, tokens: usize, y: [*]f32, y_stride: usize, blocks: [2]usize) void {
        ${scheme.linear(shape)}
    }

    /// The bare linear, for proof and measurement: y[t, row] = sum over k of W[row, k] * codes[t, k].
    /// codes: (tokens, ${k}) int8${groups === undefined ? "" : INVERSES_NOTE}. y: (tokens, ${
    paddedRows(n)
  }). Returns 1 if memory is short, else 0.
    pub export fn trilith_${symbol}(weights: [*]const u8, codes: [*]const i8, tokens: i32, y: [*]f32, first: i32, last: i32) i32 {
        const count: usize = @intCast(tokens);
        const bytes = count * ${inputBytes(scheme, k)};
        const memory: [*]u8 = @ptrCast(host.trilith_alloc(bytes) orelse return 1);
        defer host.trilith_free(memory, bytes);
        // As in a step, where what follows the codes and their padding is of an earlier input.
        @memset(memory[0..bytes], 0x55);
        const x = inputIn_k${k}(memory, count);
        for (0..count) |t| {
            @memset(x.codes[t * ${activationStride(k)} ..][0..${paddedFloats(k)}], 0);
            @memcpy(x.codes[t * ${activationStride(k)} ..][0..${k}], codes[t * ${k} ..][0..${k}]);
            ${groups === undefined ? "x.inverse[t] = 1;" : givenInverses(groupCount(groups, k), k)}
            ${prepareSymbol(k)}(x, t);
        }
        ${rowScales ? `const ones: [${paddedRows(n)}]f32 = @splat(1);` : ""}
        const plain: Linear = ${bareLinear(scheme, shape, rowScales)};
        ${symbol}(plain, x, count, y, ${paddedRows(n)}, .{ @intCast(first), @intCast(last) });
        return 0;
    }
  `;
}

const INVERSES_NOTE =
  ", then from the next multiple of 64 bytes on float32 of its groups; those of weights follow theirs";

/** Zig that takes the inverses of token t's groups from behind the codes. */
function givenInverses(groups: number, k: number): string {
  return zig`
    const inverses: [*]const f32 = @ptrCast(@alignCast(codes + std.mem.alignForward(usize, count * ${k}, 64)));
    @memcpy(x.inverse[t * ${groups} ..][0..${groups}], inverses[t * ${groups} ..][0..${groups}]);
  `;
}
