import type { Isa } from "../isa.ts";
import type { KvType, ModelSpec } from "../model_spec.ts";
import { zig } from "../writer.ts";
import { cache, keyFours, KV_BLOCK_POSITIONS, KV_CHUNK_BLOCKS, kvRow } from "./cache.ts";
import { floats } from "./floats.ts";
import { int8 } from "./int8.ts";
import { SPAN_POSITIONS } from "./reference.ts";
import { type Tiling, tilingOf } from "./tiling.ts";

/** Most tokens that go through keys and values together. */
const TILE_TOKENS = 16;

/**
 * Attention over a paged cache, generated for a model's heads, a KV type and an instruction set.
 *
 * A span of 256 positions is worked on by itself: scores, weights, weighted values. Spans are then
 * joined in order. What a query's result is made of hence depends on its own position and on the
 * cache alone; which thread computes which span, and with how many other queries, is free.
 */
export function attention(spec: ModelSpec, kvType: KvType, isa: Isa): string {
  const tiling = tilingOf(spec, kvType, isa);
  return [
    zig`
      const span = ${SPAN_POSITIONS};
      const span_blocks = ${SPAN_POSITIONS / KV_BLOCK_POSITIONS};
    `,
    kvType === "int8" ? int8(spec, isa, tiling) : floats(spec, kvType, tiling),
    cache(spec, kvType),
    spans(spec, tiling),
    tiles(spec, tiling),
    sharing(spec),
    bare(spec, kvType),
  ].join("\n");
}

/** One span: softmax, and how the results of spans are joined. */
function spans(spec: ModelSpec, tiling: Tiling): string {
  const row = kvRow(spec);
  const vectors = row / 16;
  return zig`
    const Softmax = struct { largest: Score, total: f32 };

    /// What one query has of some positions: sums of exp(score - largest) * value, and their total weight.
    const Row = struct { sums: [${row}]f32 align(64), softmax: Softmax };

    /// Positions of a span that a query sees: from .. to.
    const Seen = struct {
        from: usize,
        to: usize,

        inline fn all(seen: Seen, block: usize) bool {
            return seen.from <= block * math.lanes and (block + 1) * math.lanes <= seen.to;
        }

        inline fn lanes(seen: Seen, block: usize) @Vector(math.lanes, bool) {
            const position = std.simd.iota(i32, math.lanes) + @as(math.I, @splat(@intCast(block * math.lanes)));
            const early = position < @as(math.I, @splat(@intCast(seen.from)));
            const before_end = position < @as(math.I, @splat(@intCast(seen.to)));
            return @select(bool, early, @as(@Vector(math.lanes, bool), @splat(false)), before_end);
        }
    };

    /// Blocks from first on, up to end.
    const Blocks = struct { first: usize, end: usize };

    inline fn largestOf(scores: *const [span]Score, blocks: Blocks, seen: Seen) Score {
        const Scores = @Vector(math.lanes, Score);
        const none: Scores = @splat(-std.math.inf(Score));
        var largest = none;
        for (blocks.first..blocks.end) |b| {
            const score: Scores = scores[b * math.lanes ..][0..math.lanes].*;
            largest = math.larger(largest, if (seen.all(b)) score else @select(Score, seen.lanes(b), score, none));
        }
        return @reduce(.Max, largest);
    }

    /// exp(score - largest) of a block's positions, 0 where they are not seen.
    inline fn expWeights(scores: *const [span]Score, block: usize, seen: Seen, largest: Score) math.F {
        const Scores = @Vector(math.lanes, Score);
        const score: Scores = scores[block * math.lanes ..][0..math.lanes].*;
        const weights = math.exp(@floatCast(score - @as(Scores, @splat(largest))));
        return if (seen.all(block)) weights else @select(f32, seen.lanes(block), weights, math.splat(0));
    }

    /// Makes \`state\`, which has the positions up to a span, have those of the span too.
    fn join(state: *Row, part: *const Row) void {
        const largest = @max(state.softmax.largest, part.softmax.largest);
        var below = math.splat(0);
        below[0] = @floatCast(state.softmax.largest - largest);
        below[1] = @floatCast(part.softmax.largest - largest);
        const factors = math.exp(below);
        state.softmax = .{ .largest = largest, .total = state.softmax.total * factors[0] + part.softmax.total * factors[1] };
        const old = math.splat(factors[0]);
        const new = math.splat(factors[1]);
        inline for (0..${row / 16}) |v| {
            const offset = v * math.lanes;
            math.store(state.sums[offset..].ptr, math.load(state.sums[offset..].ptr) * old + math.load(part.sums[offset..].ptr) * new);
        }
    }

    /// out = sums / total.
    fn finishRow(state: *const Row, out: [*]f32) void {
        const inverse = 1.0 / state.softmax.total;
        for (0..${spec.headDim}) |d| out[d] = state.sums[d] * inverse;
    }

    /// What one thread works with: scores and weights of a tile's rows, and the rows of a span.
    const Scratch = struct {
        scores: [${tiling.rows}][span]Score align(64),
        weights: Weights,
        parts: [${tiling.rows}]Row,
        states: [${TILE_TOKENS * spec.numAttentionHeads / spec.numKeyValueHeads}]Row,
    };

    /// One span for \`rows\` queries, later ones of which see the same positions or later ones.
    fn attendSpan(comptime rows: usize, queries: [*]const Query, keys: [*]const KeyBlock, values: [*]const ValueBlock, seen: *const [rows]Seen, scratch: *Scratch) void {
        const together: usize = @max(1, ${tiling.sums} / rows);
        const blocks: Blocks = .{
            .first = seen[0].from / ${KV_BLOCK_POSITIONS},
            .end = (seen[rows - 1].to + ${KV_BLOCK_POSITIONS - 1}) / ${KV_BLOCK_POSITIONS},
        };
        var b = blocks.first;
        while (b + together <= blocks.end) : (b += together) scoreKeys(rows, together, queries, keys + b, &scratch.scores, b * math.lanes);
        while (b < blocks.end) : (b += 1) scoreKeys(rows, 1, queries, keys + b, &scratch.scores, b * math.lanes);
        for (0..rows) |r| scratch.parts[r].softmax = weigh(&scratch.scores[r], values, blocks, seen[r], &scratch.weights, r);
        var row: usize = 0;
        while (row + ${tiling.sumRows} <= rows) : (row += ${tiling.sumRows}) sumRows(@min(rows, ${tiling.sumRows}), values, blocks, row, scratch);
        if (rows % ${tiling.sumRows} != 0) sumRows(rows % ${tiling.sumRows}, values, blocks, row, scratch);
    }

    /// Sums of some rows, a run of features after the other.
    inline fn sumRows(comptime rows: usize, values: [*]const ValueBlock, blocks: Blocks, row: usize, scratch: *Scratch) void {
        var v: usize = 0;
        while (v + ${tiling.sumVectors} <= ${vectors}) : (v += ${tiling.sumVectors}) sumValues(rows, ${tiling.sumVectors}, &scratch.weights, values, blocks, row, v, &scratch.parts);
        if (${vectors} % ${tiling.sumVectors} != 0) sumValues(rows, ${vectors} % ${tiling.sumVectors}, &scratch.weights, values, blocks, row, v, &scratch.parts);
    }
  `;
}

/** Consecutive tokens of a sequence, which read the same keys and values. */
function tiles(spec: ModelSpec, { rows, tokenRows }: Tiling): string {
  const group = spec.numAttentionHeads / spec.numKeyValueHeads;
  return zig`
    /// Consecutive tokens of one sequence in a places.
    const Tile = struct { first: u32, tokens: u32 };

    /// Work on one KV head's share of a tile.
    const Piece = struct {
        queries: [*]const Query,
        /// Results so far, of all queries of the tile.
        states: [*]Row,
        scratch: *Scratch,
        /// Positions that the tile's first token sees, from 0 on, and how many of them at most.
        count: usize,
        window: usize,
        /// The first span that the states are to have.
        first_span: usize,
        keys: [span_blocks]KeyBlock = undefined,
        values: [span_blocks]ValueBlock = undefined,

        /// Adds span \`index\` to the states of rows \`row\` .. row + rows.
        fn attendRows(piece: *const Piece, comptime rows: usize, index: usize, row: usize) void {
            const start = index * span;
            var seen: [rows]Seen = undefined;
            for (&seen, row..) |*s, r| s.* = .{
                .from = @min(span, piece.firstOf(r) -| start),
                .to = @min(span, piece.countOf(r) -| start),
            };
            if (seen[rows - 1].to == 0 or seen[0].from == span) return;
            attendSpan(rows, piece.queries + row, &piece.keys, &piece.values, &seen, piece.scratch);
            for (seen, row.., piece.scratch.parts[0..rows]) |s, r, *part| {
                if (s.from >= s.to) continue;
                if (index == @max(piece.first_span, piece.firstOf(r) / span)) piece.states[r] = part.* else join(&piece.states[r], part);
            }
        }

        inline fn countOf(piece: *const Piece, row: usize) usize {
            return piece.count + row / ${group};
        }

        inline fn firstOf(piece: *const Piece, row: usize) usize {
            return piece.countOf(row) -| piece.window;
        }
    };

    /// states = attention of a tile's queries of one KV head to the positions of spans[0] .. spans[1].
    fn attendTile(a: *const Attention, places: Places, layer: usize, window: usize, head: usize, tile: Tile, spans: [2]usize, scratch: *Scratch, states: [*]Row) void {
        const count: usize = @intCast(places.positions[tile.first] + 1);
        const rows = tile.tokens * ${group};
        const last = count + tile.tokens - 1;
        const table = places.table(tile.first);
        var piece: Piece = .{ .queries = queriesOf(a, tile.first, head), .states = states, .scratch = scratch, .count = count, .window = window, .first_span = spans[0] };
        const begin = @max(spans[0], piece.firstOf(0) / span);
        const end = @max(begin, @min(spans[1], (last + span - 1) / span));
        for (begin..end) |index| {
            const blocks = (@min(span, last - index * span) + ${
    KV_BLOCK_POSITIONS - 1
  }) / ${KV_BLOCK_POSITIONS};
            for (0..blocks, table[index * span_blocks ..]) |b, block| {
                piece.keys[b] = keyBlock(a.cache, block, layer, head);
                piece.values[b] = valueBlock(a.cache, block, layer, head);
                if (b == 0 or @mod(block, ${KV_CHUNK_BLOCKS}) == 0) piece.values[b].fetchStart();
            }
            // Keys that come next; after the last span, the next head's first ones.
            const more = (index + 1) * span < last;
            const next_block = if (more) (index + 1) * span_blocks else 0;
            keyBlock(a.cache, table[next_block], layer, if (more) head else (head + 1) % ${spec.numKeyValueHeads}).fetchStart();
            var row: usize = 0;
            while (row + ${rows} <= rows) : (row += ${rows}) piece.attendRows(${rows}, index, row);
            ${
    rows === tokenRows
      ? []
      : `while (row < rows) : (row += ${tokenRows}) piece.attendRows(${tokenRows}, index, row);`
  }
        }
    }
  `;
}

/** Tokens times KV heads up to which each thread may have spans of its own to work on. */
const SPLIT_PAIRS = 16;

/** Bytes that `carveAttention` takes beside the cache, but for some counters. */
export function attentionBytes(
  spec: ModelSpec,
  kvType: KvType,
  isa: Isa,
  { threads, tokens, contextSize }: { threads: number; tokens: number; contextSize: number },
): number {
  const group = spec.numAttentionHeads / spec.numKeyValueHeads;
  const scoreBytes = kvType === "f32" ? 8 : 4;
  const queryBytes = kvType === "int8"
    ? Math.ceil((4 * keyFours(spec) + 8) / 64) * 64
    : scoreBytes * kvRow(spec);
  // Sums, and a line for how they are weighted.
  const rowBytes = 4 * kvRow(spec) + 64;
  const { rows } = tilingOf(spec, kvType, isa);
  const weightBytes = kvType === "int8" ? 2 : 4;
  const scratch = rows * SPAN_POSITIONS * (scoreBytes + weightBytes) +
    (rows + TILE_TOKENS * group) * rowBytes;
  const spans = Math.ceil(contextSize / SPAN_POSITIONS);
  return spec.numAttentionHeads * tokens * queryBytes +
    threads * (scratch + SPLIT_PAIRS * spans * group * rowBytes);
}

/** How a step's attention is shared out among threads. */
function sharing(spec: ModelSpec): string {
  const heads = spec.numKeyValueHeads;
  const group = spec.numAttentionHeads / heads;
  const row = kvRow(spec);
  return zig`
    /// Where the tokens of a step stand in their sequences.
    const Places = struct {
        tokens: usize,
        positions: [*]const i32,
        /// Row of each token's sequence in the block tables.
        tables_of: [*]const i32,
        tables: [*]const i32,
        table_stride: usize,

        fn table(places: Places, token: usize) [*]const i32 {
            const row: usize = @intCast(places.tables_of[token]);
            return places.tables + row * places.table_stride;
        }
    };

    /// Tokens times KV heads up to which each thread may have spans of its own to work on.
    const split_pairs = ${SPLIT_PAIRS};
    const ticket_spans = 4;
    /// A window of all positions.
    const everything = std.math.maxInt(usize);

    /// The cache, and what attention needs beside it.
    const Attention = struct {
        cache: [*]CacheChunk = undefined,
        max_tokens: usize = 0,
        threads: usize = 0,
        /// (KV head, max_tokens, ${group}): the queries of one head and consecutive tokens lie together.
        queries: [*]Query = undefined,
        /// One a thread.
        scratch: [*]Scratch = undefined,
        /// A step's tiles, at most max_tokens.
        tiles: [*]Tile = undefined,
        tile_count: usize = 0,
        /// Spans of the longest sequence of the step, and whether they are shared out one by one.
        spans: usize = 0,
        split: bool = false,
        /// (KV head, spans, tokens, ${group}) where the step is split.
        parts: [*]Row = undefined,
        /// The next piece of work of each layer.
        tickets: [*]std.atomic.Value(u32) = undefined,
    };

    /// Queries of one token that share a KV head; those of the next token follow.
    inline fn queriesOf(a: *const Attention, token: usize, head: usize) *[${group}]Query {
        return (a.queries + (head * a.max_tokens + token) * ${group})[0..${group}];
    }

    /// Takes what attention needs for up to \`context\` positions from a carver of memory.
    fn carveAttention(carver: *Carver, a: *Attention, max_tokens: usize, context: usize, threads: usize, kv_blocks: usize) void {
        const most_spans = (context + span - 1) / span;
        a.max_tokens = max_tokens;
        a.threads = threads;
        a.queries = carver.take(Query, ${heads} * max_tokens * ${group});
        a.scratch = carver.take(Scratch, threads);
        a.tiles = carver.take(Tile, max_tokens);
        a.parts = carver.take(Row, threads * split_pairs * most_spans * ${group});
        a.tickets = carver.take(std.atomic.Value(u32), ${spec.numHiddenLayers});
        a.cache = carver.take(CacheChunk, chunksOf(kv_blocks));
    }

    /// Before a step: cuts its tokens into tiles. A few tokens with a long past are split by spans, as
    /// there would be too little for all threads else.
    fn shareOut(a: *Attention, places: Places) void {
        var longest: usize = 0;
        for (places.positions[0..places.tokens]) |position| longest = @max(longest, @as(usize, @intCast(position)) + 1);
        a.spans = (longest + span - 1) / span;
        a.split = a.spans > 1 and places.tokens * ${heads} <= a.threads * split_pairs;
        var most: usize = ${TILE_TOKENS};
        while (most > 2 and places.tokens * ${heads} < 4 * a.threads * most) most /= 2;
        a.tile_count = 0;
        var first: usize = 0;
        while (first < places.tokens) {
            const tokens = consecutive(places, first, most);
            a.tiles[a.tile_count] = .{ .first = @intCast(first), .tokens = @intCast(tokens) };
            a.tile_count += 1;
            first += tokens;
        }
        for (a.tickets[0..${spec.numHiddenLayers}]) |*ticket| ticket.store(0, .monotonic);
    }

    /// Tokens from \`first\` on, at most \`most\`, that follow each other in one sequence.
    fn consecutive(places: Places, first: usize, most: usize) usize {
        const limit = @min(first + most, places.tokens);
        var next = first + 1;
        while (next < limit and places.tables_of[next] == places.tables_of[first] and places.positions[next] == places.positions[next - 1] + 1) next += 1;
        return next - first;
    }

    /// Takes work until there is none: who does what changes nothing. Long tiles come first, so that
    /// threads end together.
    /// attended: (tokens, stride) with ${spec.numAttentionHeads} heads of ${spec.headDim}.
    fn attendPieces(a: *const Attention, places: Places, layer: usize, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
        const scratch = &a.scratch[thread];
        if (a.split) return attendSpans(a, places, layer, window, scratch);
        const pieces = a.tile_count * ${heads};
        while (true) {
            const piece: usize = a.tickets[layer].fetchAdd(1, .monotonic);
            if (piece >= pieces) return;
            const tile = a.tiles[a.tile_count - 1 - piece % a.tile_count];
            const head = piece / a.tile_count;
            attendTile(a, places, layer, window, head, tile, .{ 0, a.spans }, scratch, &scratch.states);
            for (0..tile.tokens * ${group}) |r| finishRow(&scratch.states[r], attendedRow(attended, stride, tile.first + r / ${group}, head, r % ${group}));
        }
    }

    /// Takes some spans of a split step at a time, so that what was fetched ahead is mostly one's own.
    fn attendSpans(a: *const Attention, places: Places, layer: usize, window: usize, scratch: *Scratch) void {
        const pieces = a.tile_count * ${heads} * a.spans;
        while (true) {
            const first = ticket_spans * @as(usize, a.tickets[layer].fetchAdd(1, .monotonic));
            if (first >= pieces) return;
            for (first..@min(first + ticket_spans, pieces)) |piece| {
                const head = piece / a.spans % ${heads};
                const index = piece % a.spans;
                const tile = a.tiles[piece / a.spans / ${heads}];
                const states = partsOf(a, places, head, index) + tile.first * ${group};
                attendTile(a, places, layer, window, head, tile, .{ index, index + 1 }, scratch, states);
            }
        }
    }

    inline fn partsOf(a: *const Attention, places: Places, head: usize, index: usize) [*]Row {
        return a.parts + (head * a.spans + index) * places.tokens * ${group};
    }

    inline fn attendedRow(attended: [*]f32, stride: usize, token: usize, head: usize, query: usize) [*]f32 {
        return attended + token * stride + (head * ${group} + query) * ${spec.headDim};
    }

    /// After a split step's pieces: joins the spans of each query. Heads of tokens are shared out.
    fn joinParts(a: *const Attention, places: Places, window: usize, thread: usize, attended: [*]f32, stride: usize) void {
        const pairs = math.share(places.tokens * ${heads}, thread, a.threads);
        for (pairs[0]..pairs[1]) |pair| {
            const token = pair / ${heads};
            const head = pair % ${heads};
            const count: usize = @intCast(places.positions[token] + 1);
            for (0..${group}) |g| {
                const first = (count -| window) / span;
                const state = &partsOf(a, places, head, first)[token * ${group} + g];
                for (first + 1..(count + span - 1) / span) |index| join(state, &partsOf(a, places, head, index)[token * ${group} + g]);
                finishRow(state, attendedRow(attended, stride, token, head, g));
            }
        }
    }

    /// Fills the cache's first blocks with numbers like a trained model's, to measure attention by.
    fn fillCache(a: *const Attention, blocks: usize) void {
        var random: u32 = 1;
        var made: [${row}]f32 = undefined;
        for (0..blocks * ${KV_BLOCK_POSITIONS}) |position| {
            const block: i32 = @intCast(position / ${KV_BLOCK_POSITIONS});
            const slot = position % ${KV_BLOCK_POSITIONS};
            for (&made) |*value| {
                random = random *% 1664525 +% 1013904223;
                value.* = @as(f32, @floatFromInt(random >> 8)) * 0x1p-22 - 2;
            }
            for (0..${spec.numHiddenLayers}) |layer| {
                for (0..${heads}) |head| {
                    storeKey(keyBlock(a.cache, block, layer, head), slot, &made);
                    storeValue(valueBlock(a.cache, block, layer, head), slot, &made);
                }
            }
        }
    }

    inline fn chunksOf(blocks: usize) usize {
        return (blocks + ${KV_CHUNK_BLOCKS - 1}) / ${KV_CHUNK_BLOCKS};
    }
  `;
}

/** A symbol that spells its heads and KV type: `trilith_attention_20x5x128_f16`. */
export function attentionSymbol(spec: ModelSpec, kvType: KvType): string {
  const { numAttentionHeads, numKeyValueHeads, headDim } = spec;
  return `trilith_attention_${numAttentionHeads}x${numKeyValueHeads}x${headDim}_${kvType}`;
}

/** Attention by itself, for tests, proof and measurement. */
function bare(spec: ModelSpec, kvType: KvType): string {
  const heads = spec.numKeyValueHeads;
  const { headDim, numAttentionHeads } = spec;
  const group = numAttentionHeads / heads;
  return zig`
    /// Attention of the last \`tokens\` of \`positions\` positions to all before them, nothing being turned.
    /// q: (tokens, ${numAttentionHeads}, ${headDim}). k, v: (positions, ${heads}, ${headDim}). table: KV blocks of the
    /// sequence. window: positions that a query sees at most. out: (tokens, ${numAttentionHeads}, ${headDim}). Work is shared out as for \`threads\` threads, and done
    /// by this one. Returns 1 if memory is short, else 0.
    pub export fn ${
    attentionSymbol(spec, kvType)
  }(q: [*]const f32, k: [*]const f32, v: [*]const f32, table: [*]const i32, positions: i32, tokens: i32, window: i32, threads: i32, out: [*]f32) i32 {
        const count: usize = @intCast(positions);
        const queries: usize = @intCast(tokens);
        var blocks: usize = 0;
        for (table[0 .. (count + ${
    KV_BLOCK_POSITIONS - 1
  }) / ${KV_BLOCK_POSITIONS}]) |block| blocks = @max(blocks, @as(usize, @intCast(block)) + 1);
        var a: Attention = .{};
        var measure: Carver = .{ .base = null };
        _ = carveBare(&measure, &a, count, @intCast(threads), blocks);
        const memory: [*]u8 = @ptrCast(host.trilith_alloc(measure.used) orelse return 1);
        defer host.trilith_free(memory, measure.used);
        var carver: Carver = .{ .base = memory };
        const all = carveBare(&carver, &a, count, @intCast(threads), blocks);
        for (all.positions[0..count], 0..) |*position, i| position.* = @intCast(i);
        const places: Places = .{ .tokens = queries, .positions = all.positions + count - queries, .tables_of = all.tables_of, .tables = table, .table_stride = 0 };
        for (0..${heads}) |head| {
            for (0..count) |position| {
                const row = (position * ${heads} + head) * ${headDim};
                const block = table[position / ${KV_BLOCK_POSITIONS}];
                storeKey(keyBlock(a.cache, block, 0, head), position % ${KV_BLOCK_POSITIONS}, k + row);
                storeValue(valueBlock(a.cache, block, 0, head), position % ${KV_BLOCK_POSITIONS}, v + row);
            }
            for (0..queries) |token| {
                const first = q + (token * ${numAttentionHeads} + head * ${group}) * ${headDim};
                for (queriesOf(&a, token, head), 0..) |*query, g| makeQuery(query, first + g * ${headDim});
            }
        }
        shareOut(&a, places);
        attendPieces(&a, places, 0, @intCast(window), 0, out, ${numAttentionHeads * headDim});
        if (a.split) {
            for (0..a.threads) |thread| joinParts(&a, places, @intCast(window), thread, out, ${
    numAttentionHeads * headDim
  });
        }
        return 0;
    }

    const Bare = struct { positions: [*]i32, tables_of: [*]i32 };

    fn carveBare(carver: *Carver, a: *Attention, count: usize, threads: usize, blocks: usize) Bare {
        carveAttention(carver, a, count, count, threads, blocks);
        return .{
            .positions = carver.take(i32, count),
            .tables_of = carver.take(i32, count),
        };
    }
  `;
}
