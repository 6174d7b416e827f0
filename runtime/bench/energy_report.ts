import type { EnergyDomain, EnergyProblem, Joules } from "./energy.ts";
import { median } from "./statistics.ts";
import type { EnergyPhase, EnergyReport } from "./types.ts";

/** What prefill and decode of one turn used. */
export interface TurnEnergy {
  prefill: Joules | EnergyProblem;
  decode: Joules | EnergyProblem;
  prefillSeconds: number;
  decodeSeconds: number;
}

/** Medians over the turns; a counter that failed in any of them is told instead. */
export function energyReport(
  domains: readonly EnergyDomain[],
  turns: readonly TurnEnergy[],
  { promptTokens, genTokens }: { promptTokens: number; genTokens: number },
): EnergyReport {
  const problem = turns.flatMap(({ prefill, decode }) => [prefill, decode]).find(isProblem);
  if (problem !== undefined) return problem;
  const of = (kind: "prefill" | "decode", tokens: number) =>
    phaseOf(
      domains,
      tokens,
      turns.map((turn) => ({ joules: turn[kind] as Joules, seconds: turn[`${kind}Seconds`] })),
    );
  return {
    available: true,
    domains: domains.map(({ name, kind }) => ({ name, kind })),
    prefill: of("prefill", promptTokens),
    decode: of("decode", genTokens),
  };
}

function isProblem(result: Joules | EnergyProblem): result is EnergyProblem {
  return "available" in result;
}

function phaseOf(
  domains: readonly EnergyDomain[],
  tokens: number,
  runs: readonly { joules: Joules; seconds: number }[],
): EnergyPhase {
  const sumOf = (joules: Joules, kind: EnergyDomain["kind"]) =>
    joules.reduce((sum, value, i) => domains[i].kind === kind ? sum + value : sum, 0);
  const perToken = (kind: EnergyDomain["kind"]) =>
    domains.some((domain) => domain.kind === kind)
      ? median(runs.map(({ joules }) => sumOf(joules, kind) / tokens))
      : null;
  const whole = (joules: Joules) => sumOf(joules, "package") + sumOf(joules, "dram");
  return {
    joulesPerToken: median(runs.map(({ joules }) => whole(joules) / tokens)),
    packageJoulesPerToken: perToken("package")!,
    dramJoulesPerToken: perToken("dram"),
    platformJoulesPerToken: perToken("platform"),
    watts: median(runs.map(({ joules, seconds }) => whole(joules) / seconds)),
  };
}
