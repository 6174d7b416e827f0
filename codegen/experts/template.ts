import { ZIG_TYPES } from "../dense/template.ts";
import { blocksOf, paddedRows } from "../layouts/layout.ts";
import { type Experts, expertShapes, type ModelSpec, type Shape } from "../model_spec.ts";
import { paddedFloats, quantizeSymbol } from "../norm_quantize/template.ts";
import type { PackedPlan } from "../plan.ts";
import { linearSymbol, prepareSymbol, type Scheme } from "../ternary_linear/scheme.ts";
import { inputBuffers, inputBytes } from "../ternary_linear/template.ts";
import { zig } from "../writer.ts";

/** Tokens of an expert that run at once: their tables and sums stay in the second-level cache. */
const EXPERT_TOKENS = 32;

/** Batches of so few tokens may cut experts among threads, with barriers in between. */
const SPLIT_TOKENS = 8;

/** Blocks of 32 rows that are not cut: what a kernel of any scheme does at once. */
const UNIT_BLOCKS = 4;

/** Reading an expert's weights takes as long as so many tokens' sums. Steers who does what only. */
const WEIGHTS_COST = 2;

/** What a batch's experts need in memory. All names are fields of the generated Model. */
export interface ExpertBuffers {
  /** Buffers of max_tokens rows: name, Zig type and elements a token. */
  perToken: [name: string, type: string, elements: number][];
  /** Buffers of which each thread has its own, in bytes: 64-byte aligned parts. */
  threadBytes: number;
  /** Bytes that all threads share. */
  sharedBytes: number;
}

/** Everything that the fragments below look up. */
interface ExpertContext {
  spec: ModelSpec;
  experts: Experts;
  scheme: Scheme;
  plan: PackedPlan;
  gateUp: Shape;
  down: Shape;
  hidden: number;
  /** Elements from one token's router weights to the next. */
  weightStride: number;
  /** Doubles of each thread's part of `rows`, of which the experts use the first. */
  rowScratch: number;
}

export function expertBuffers(spec: ModelSpec, scheme: Scheme): ExpertBuffers {
  const [gateUp, down] = expertShapes(spec);
  const { numExperts, numExpertsPerTok: picks } = spec.experts!;
  const rowsBytes = (rows: number) => rows * (gateUp.n * 4 + inputBytes(scheme, down.k));
  return {
    perToken: [
      ["routed", "f32", paddedFloats(spec.hiddenSize)],
      ["router_scores", "f32", numExperts],
      ["picked", "u32", picks],
      ["picked_weights", "f32", paddedFloats(picks)],
      ["expert_out", "f32", picks * paddedRows(spec.hiddenSize)],
    ],
    threadBytes: rowsBytes(EXPERT_TOKENS) + EXPERT_TOKENS * inputBytes(scheme, gateUp.k),
    sharedBytes: rowsBytes(SPLIT_TOKENS * picks),
  };
}

/**
 * A layer's mixture of experts: the router scores all experts in float32, each token's best are
 * picked, and only their weights are read. Tokens are grouped by expert, so that an expert's matrices
 * meet all of their tokens at once. Int8 activations stand for the float ones of models that quantise
 * weights only, as in all ternary linears here: a token's values are rounded to 1/127 of its largest.
 *
 * Needs the linears of `expertShapes`, `gatedActivation`, `quantize` and the Model's `expertBuffers`.
 */
export function experts(
  spec: ModelSpec,
  scheme: Scheme,
  plan: PackedPlan,
  rowScratch: number,
): string {
  const [gateUp, down] = expertShapes(spec);
  const experts = spec.experts!;
  const weightStride = paddedFloats(experts.numExpertsPerTok);
  const hidden = paddedFloats(spec.hiddenSize);
  const context = { spec, experts, scheme, plan, gateUp, down, hidden, weightStride, rowScratch };
  return [
    weights(context),
    scoring(context),
    picking(context),
    grouping(context),
    inputs(context),
    wholeExperts(context),
    splitExperts(context),
    running(),
    combining(context),
  ].join("\n");
}

function weights({ plan, gateUp, down }: ExpertContext): string {
  return zig`
    /// Where an expert's tensors lie, in bytes from its start.
    const at_expert = struct {
        ${plan.expert.map(({ name, offset }) => `const ${name} = ${offset};`)}
    };

    fn expertOf(layer: [*]const u8, index: usize) [*]const u8 {
        return layer + at.experts + index * ${plan.expertBytes};
    }

    /// Gate's rows, then up's from a block's first row on: (${gateUp.n}, ${gateUp.k}).
    inline fn gateUpOf(expert: [*]const u8) Linear {
        return .{ .codes = expert + at_expert.gate_up_codes, .scales = floats(expert + at_expert.gate_up_scales), .bias = null };
    }

    /// (${down.n}, ${down.k})
    inline fn downOf(expert: [*]const u8) Linear {
        return .{ .codes = expert + at_expert.down_codes, .scales = floats(expert + at_expert.down_scales), .bias = null };
    }
  `;
}

/** The largest of 4, 2, 1 up to `most` that divides the number of experts. */
function routerRows({ numExperts }: Experts, most: number): number {
  return [4, 2, 1].find((rows) => rows <= most && numExperts % rows === 0)!;
}

function scoring({ experts, hidden }: ExpertContext): string {
  const { numExperts } = experts;
  return zig`
    const RouterElement = ${ZIG_TYPES[experts.routerType]};

    /// Rows of the router and tokens that meet at once: their sums stay in registers.
    const wide_registers = (std.simd.suggestVectorLength(f32) orelse 4) >= math.lanes;
    const router_rows = if (wide_registers) ${routerRows(experts, 4)} else ${
    routerRows(experts, 2)
  };
    const router_tokens = if (wide_registers) 4 else 2;

    /// router_scores[t, e] = row e of the router . routed[t]: experts are shared out among threads.
    fn scoreExperts(step: *const Step, layer: [*]const u8, thread: usize) void {
        const model = step.model;
        const router: [*]const RouterElement = @ptrCast(@alignCast(layer + at.router));
        const tiles = math.share(${numExperts} / router_rows, thread, model.team.threads);
        for (tiles[0]..tiles[1]) |tile| {
            const rows = router + tile * router_rows * ${hidden};
            const scores = model.router_scores + tile * router_rows;
            var t: usize = 0;
            while (t + router_tokens <= step.batch.tokens) : (t += router_tokens) scoreTokens(router_tokens, rows, model.routed + t * ${hidden}, scores + t * ${numExperts});
            while (t < step.batch.tokens) : (t += 1) scoreTokens(1, rows, model.routed + t * ${hidden}, scores + t * ${numExperts});
        }
    }

    /// Scores of m tokens for some experts: lane i % 16 adds its products in order, then the tree.
    inline fn scoreTokens(comptime m: usize, router: [*]const RouterElement, x: [*]const f32, scores: [*]f32) void {
        var acc: [m][router_rows]math.F = @splat(@splat(@splat(0)));
        var i: usize = 0;
        while (i < ${hidden}) : (i += math.lanes) {
            inline for (0..router_rows) |r| {
                // One token reads the router from memory: the next tile is fetched meanwhile.
                if (m == 1) @prefetch(router + (router_rows + r) * ${hidden} + i, .{ .locality = 2 });
                const row = math.widen(RouterElement, router + r * ${hidden} + i);
                inline for (0..m) |t| acc[t][r] += math.load(x + t * ${hidden} + i) * row;
            }
        }
        inline for (0..m) |t| {
            inline for (0..router_rows) |r| scores[t * ${numExperts} + r] = math.sum(acc[t][r]);
        }
    }
  `;
}

function picking({ experts, weightStride }: ExpertContext): string {
  const { numExperts, numExpertsPerTok: picks } = experts;
  return zig`
    /// The experts of each token, best first, and their weights. Tokens are shared out among threads.
    fn pickExperts(step: *const Step, thread: usize) void {
        const model = step.model;
        const tokens = math.share(step.batch.tokens, thread, model.team.threads);
        for (tokens[0]..tokens[1]) |t| {
            const scores = model.router_scores + t * ${numExperts};
            pickLargest(scores, model.picked + t * ${picks});
            weighPicked(scores, model.picked + t * ${picks}, model.picked_weights + t * ${weightStride});
        }
    }

    /// The ${picks} largest of ${numExperts} scores, falling; of equal ones the lower expert first.
    /// Whatever the scores are, not a number too, the picked are different experts.
    fn pickLargest(scores: [*]const f32, picked: [*]u32) void {
        var found: usize = 0;
        for (0..${numExperts}) |expert| {
            const score = scores[expert];
            if (found == ${picks} and !(score > scores[picked[${picks - 1}]])) continue;
            if (found < ${picks}) found += 1;
            var rank = found - 1;
            while (rank > 0 and score > scores[picked[rank - 1]]) : (rank -= 1) picked[rank] = picked[rank - 1];
            picked[rank] = @intCast(expert);
        }
    }

    /// Softmax over the picked scores.
    fn weighPicked(scores: [*]const f32, picked: [*]const u32, weights: [*]f32) void {
        var sums: math.F = @splat(0);
        var i: usize = 0;
        while (i < ${picks}) : (i += math.lanes) {
            const count: usize = @min(math.lanes, ${picks} - i);
            var below: [math.lanes]f32 = @splat(0);
            for (0..count) |l| below[l] = scores[picked[i + l]] - scores[picked[0]];
            var exps: [math.lanes]f32 = math.exp(below);
            for (count..math.lanes) |l| exps[l] = 0;
            weights[i..][0..math.lanes].* = exps;
            sums += exps;
        }
        const inverse = math.splat(1.0 / math.sum(sums));
        i = 0;
        while (i < ${picks}) : (i += math.lanes) math.store(weights + i, math.load(weights + i) * inverse);
    }
  `;
}

function grouping({ experts }: ExpertContext): string {
  const { numExperts, numExpertsPerTok: picks } = experts;
  return zig`
    /// A batch's picks grouped by expert. Each thread makes its own, which takes less than to wait.
    const Groups = struct {
        /// (${numExperts} + 2,): picks of expert e have the places starts[e] .. starts[e + 1].
        starts: [*]u32,
        /// (places,): the token at each place; in an expert's part tokens stand in order.
        tokens: [*]u32,
        /// (tokens, ${picks}): the place of each pick.
        places: [*]u32,

        fn of(model: *const Model, thread: usize) Groups {
            const picks = model.max_tokens * ${picks};
            const starts = model.groups + thread * (${numExperts + 2} + 2 * picks);
            return .{ .starts = starts, .tokens = starts + ${numExperts + 2}, .places = starts + ${
    numExperts + 2
  } + picks };
        }

        fn group(groups: Groups, model: *const Model, tokens: usize) void {
            const starts = groups.starts;
            @memset(starts[0..${numExperts + 2}], 0);
            for (0..tokens * ${picks}) |pick| starts[model.picked[pick] + 2] += 1;
            for (2..${numExperts + 2}) |i| starts[i] += starts[i - 1];
            // Now starts[e + 1] is where e begins; placing its picks moves it to where e ends.
            for (0..tokens * ${picks}) |pick| {
                const place = &starts[model.picked[pick] + 1];
                groups.tokens[place.*] = @intCast(pick / ${picks});
                groups.places[pick] = place.*;
                place.* += 1;
            }
        }
    };

    /// Some tokens of one expert, ${EXPERT_TOKENS} at most: places first .. last.
    const Work = struct { expert: usize, first: usize, last: usize };

    /// All work of a batch, in the order of the experts.
    const Works = struct {
        groups: Groups,
        expert: usize = 0,
        place: usize = 0,

        fn next(works: *Works) ?Work {
            const starts = works.groups.starts;
            while (works.expert < ${numExperts} and works.place == starts[works.expert + 1]) works.expert += 1;
            if (works.expert == ${numExperts}) return null;
            const first = works.place;
            works.place = @min(first + ${EXPERT_TOKENS}, starts[works.expert + 1]);
            return .{ .expert = works.expert, .first = first, .last = works.place };
        }
    };

    /// How work is shared out: each thread has about as much as the others, in whole pieces.
    const Shares = struct {
        total: usize,
        threads: usize,
        /// The work of the thread that has most.
        most: usize,

        fn of(groups: Groups, threads: usize) Shares {
            var shares: Shares = .{ .total = 0, .threads = threads, .most = 0 };
            var works: Works = .{ .groups = groups };
            while (works.next()) |work| shares.total += costOf(work);
            works = .{ .groups = groups };
            var done: usize = 0;
            var thread: usize = 0;
            var own: usize = 0;
            while (works.next()) |work| {
                const owner = shares.ownerOf(done, work);
                own = if (owner == thread) own + costOf(work) else costOf(work);
                thread = owner;
                shares.most = @max(shares.most, own);
                done += costOf(work);
            }
            return shares;
        }

        /// The thread in whose part the middle of the work falls.
        fn ownerOf(shares: Shares, done: usize, work: Work) usize {
            return (2 * done + costOf(work)) * shares.threads / (2 * shares.total);
        }

        fn isEven(shares: Shares) bool {
            return 8 * shares.most * shares.threads <= 9 * shares.total;
        }

        fn costOf(work: Work) usize {
            return work.last - work.first + ${WEIGHTS_COST};
        }
    };
  `;
}

function inputs({ scheme, gateUp, down }: ExpertContext): string {
  const codes = inputBuffers(scheme, gateUp.k).find(({ name }) => name === "codes")!;
  const from = (k: number) =>
    zig`
      /// Inputs of ${k} features from row t on.
      inline fn inputFrom_k${k}(x: Quantized, t: usize) Quantized {
          return .{
              ${
      inputBuffers(scheme, k).map(({ name, elements }) => `.${name} = x.${name} + t * ${elements},`)
    }
          };
      }
    `;
  const ks = [...new Set([gateUp.k, down.k])];
  return zig`
    ${ks.map(from).join("\n")}

    /// The inputs of some tokens one after the other. Only codes are copied: making anew what linears
    /// read of them moves less memory.
    fn gatherInputs(x: Quantized, tokens: []const u32, out: Quantized) Quantized {
        if (tokens.len == 1) return inputFrom_k${gateUp.k}(x, tokens[0]);
        for (tokens, 0..) |t, i| {
            @memcpy(out.codes[i * ${codes.elements} ..][0..${codes.elements}], x.codes[t * ${codes.elements} ..][0..${codes.elements}]);
            out.inverse[i] = x.inverse[t];
            ${prepareSymbol(gateUp.k)}(out, i);
        }
        return out;
    }
  `;
}

/** The memory in which rows of some picks run: gate and up, then what down reads. */
function rowsMemory({ scheme, gateUp, down }: ExpertContext, rows: number) {
  return {
    activated: `inputIn_k${down.k}(memory, ${rows})`,
    gateUp: rows * inputBytes(scheme, down.k),
    end: rows * (inputBytes(scheme, down.k) + gateUp.n * 4),
  };
}

function wholeExperts(context: ExpertContext): string {
  const { spec, gateUp, down, rowScratch } = context;
  const memory = rowsMemory(context, EXPERT_TOKENS);
  const stride = paddedRows(spec.hiddenSize);
  return zig`
    /// Row i of activated = round(act(gate) * up) of row i of gate_up.
    fn activateRow(gate_up: [*]const f32, activated: Quantized, row: [*]f64, i: usize) void {
        const gate = gate_up + i * ${gateUp.n};
        const largest = gatedActivation(gate, gate + ${gateUp.n / 2}, row);
        ${quantizeSymbol(down.k)}(f64, row, largest, activated, i);
    }

    /// The thread's part of the experts, each from its tokens' inputs to its outputs.
    fn runWhole(step: *const Step, layer: [*]const u8, groups: Groups, shares: Shares, watch: ?*Stopwatch, thread: usize) void {
        const model = step.model;
        const memory = model.thread_experts + thread * model.thread_expert_bytes;
        const activated = ${memory.activated};
        const gate_up: [*]f32 = @ptrCast(@alignCast(memory + ${memory.gateUp}));
        const gathered = inputIn_k${gateUp.k}(memory + ${memory.end}, ${EXPERT_TOKENS});
        const row = model.rows + thread * ${rowScratch};
        var works: Works = .{ .groups = groups };
        var done: usize = 0;
        while (works.next()) |work| {
            const owner = shares.ownerOf(done, work);
            done += Shares.costOf(work);
            if (owner != thread) continue;
            const expert = expertOf(layer, work.expert);
            const tokens = groups.tokens[work.first..work.last];
            const x = gatherInputs(inputOf(model, 0), tokens, gathered);
            lap(watch, .gather);
            ${linearSymbol(gateUp)}(gateUpOf(expert), x, tokens.len, gate_up, ${gateUp.n}, .{ 0, ${
    blocksOf(gateUp.n)
  } });
            lap(watch, .gateUp);
            for (0..tokens.len) |i| activateRow(gate_up, activated, row, i);
            lap(watch, .activation);
            ${
    linearSymbol(down)
  }(downOf(expert), activated, tokens.len, model.expert_out + work.first * ${stride}, ${stride}, .{ 0, ${
    blocksOf(down.n)
  } });
            lap(watch, .down);
        }
    }
  `;
}

function splitExperts(context: ExpertContext): string {
  const { experts, spec, gateUp, down, rowScratch } = context;
  const picks = experts.numExpertsPerTok;
  const memory = rowsMemory(context, SPLIT_TOKENS * picks);
  const stride = paddedRows(spec.hiddenSize);
  return zig`
    /// All threads work on the same experts: for few tokens, where whole experts don't come out even.
    fn runSplit(step: *const Step, layer: [*]const u8, groups: Groups, team: *Team, watch: ?*Stopwatch, thread: usize) void {
        const model = step.model;
        const memory = model.shared_experts;
        const activated = ${memory.activated};
        const gate_up: [*]f32 = @ptrCast(@alignCast(memory + ${memory.gateUp}));
        const own = model.thread_experts + thread * model.thread_expert_bytes;
        const gathered = inputIn_k${gateUp.k}(own + ${
    rowsMemory(context, EXPERT_TOKENS).end
  }, ${EXPERT_TOKENS});
        var cuts: Cuts = .{ .works = .{ .groups = groups }, .blocks = ${
    blocksOf(gateUp.n)
  }, .thread = thread, .threads = team.threads };
        while (cuts.next()) |cut| {
            const tokens = groups.tokens[cut.work.first..cut.work.last];
            const x = gatherInputs(inputOf(model, 0), tokens, gathered);
            ${
    linearSymbol(gateUp)
  }(gateUpOf(expertOf(layer, cut.work.expert)), x, tokens.len, gate_up + cut.work.first * ${gateUp.n}, ${gateUp.n}, cut.blocks);
        }
        meet(team, watch, .gateUp);
        const rows = math.share(step.batch.tokens * ${picks}, thread, team.threads);
        for (rows[0]..rows[1]) |i| activateRow(gate_up, activated, model.rows + thread * ${rowScratch}, i);
        meet(team, watch, .activation);
        cuts = .{ .works = .{ .groups = groups }, .blocks = ${
    blocksOf(down.n)
  }, .thread = thread, .threads = team.threads };
        while (cuts.next()) |cut| {
            const x = inputFrom_k${down.k}(activated, cut.work.first);
            ${
    linearSymbol(down)
  }(downOf(expertOf(layer, cut.work.expert)), x, cut.work.last - cut.work.first, model.expert_out + cut.work.first * ${stride}, ${stride}, cut.blocks);
        }
    }

    /// A thread's part of one matrix of each expert, in units of ${UNIT_BLOCKS} blocks.
    const Cuts = struct {
        works: Works,
        blocks: usize,
        thread: usize,
        threads: usize,
        /// Units of the experts before.
        done: usize = 0,

        const Cut = struct { work: Work, blocks: [2]usize };

        fn next(cuts: *Cuts) ?Cut {
            const units = (cuts.blocks + ${UNIT_BLOCKS - 1}) / ${UNIT_BLOCKS};
            const mine = math.share(cuts.total(units), cuts.thread, cuts.threads);
            while (cuts.works.next()) |work| {
                const own = overlap(mine, cuts.done, units);
                cuts.done += units;
                if (own[0] == own[1]) continue;
                return .{ .work = work, .blocks = .{ own[0] * ${UNIT_BLOCKS}, @min(own[1] * ${UNIT_BLOCKS}, cuts.blocks) } };
            }
            return null;
        }

        fn total(cuts: *const Cuts, units: usize) usize {
            var works: Works = .{ .groups = cuts.works.groups };
            var count: usize = 0;
            while (works.next()) |_| count += units;
            return count;
        }
    };
  `;
}

function running(): string {
  return zig`
    /// The picked experts of all tokens. All threads decide alike whether experts are cut.
    fn runExperts(step: *const Step, layer: [*]const u8, team: *Team, watch: ?*Stopwatch, thread: usize) void {
        const groups: Groups = .of(step.model, thread);
        groups.group(step.model, step.batch.tokens);
        const shares: Shares = .of(groups, team.threads);
        if (step.batch.tokens > ${SPLIT_TOKENS} or shares.isEven()) {
            runWhole(step, layer, groups, shares, watch, thread);
        } else {
            runSplit(step, layer, groups, team, watch, thread);
        }
    }
  `;
}

function combining({ spec, experts, hidden, weightStride }: ExpertContext): string {
  const picks = experts.numExpertsPerTok;
  const stride = paddedRows(spec.hiddenSize);
  return zig`
    /// y[t] = sum over ranks of weight * the expert's output, in order. Tokens are shared out among threads.
    fn combineExperts(step: *const Step, thread: usize) void {
        const model = step.model;
        const places = Groups.of(model, thread).places;
        const tokens = math.share(step.batch.tokens, thread, model.team.threads);
        for (tokens[0]..tokens[1]) |t| {
            var i: usize = 0;
            while (i < ${hidden}) : (i += math.lanes) {
                var sum: math.F = @splat(0);
                for (0..${picks}) |rank| {
                    const out = math.load(model.expert_out + places[t * ${picks} + rank] * ${stride} + i);
                    sum += math.splat(model.picked_weights[t * ${weightStride} + rank]) * out;
                }
                math.store(model.y + t * ${stride} + i, sum);
            }
        }
    }
  `;
}
