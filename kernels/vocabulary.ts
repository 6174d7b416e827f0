import floats from "./zig/floats.zig" with { type: "text" };
import host from "./zig/host.zig" with { type: "text" };
import math from "./zig/math.zig" with { type: "text" };
import pack from "./zig/pack.zig" with { type: "text" };
import profile from "./zig/profile.zig" with { type: "text" };
import sketch from "./zig/sketch.zig" with { type: "text" };
import team from "./zig/team.zig" with { type: "text" };

/** The Zig that is written by hand, by the names under which generated kernels import it. */
export const VOCABULARY: ReadonlyMap<string, string> = new Map([
  ["floats.zig", floats],
  ["host.zig", host],
  ["math.zig", math],
  ["pack.zig", pack],
  ["profile.zig", profile],
  ["sketch.zig", sketch],
  ["team.zig", team],
]);
