import type { BenchReport, CostReport } from "./types.ts";

/** What a million tokens cost on a machine of this price that does nothing else. */
export function costReport(
  eurPerHour: number,
  { prefill, decode, batches }: Pick<BenchReport, "prefill" | "decode" | "batches">,
): CostReport {
  const price = (tokensPerSecond: number) => eurPerHour / 3600 / tokensPerSecond * 1e6;
  return {
    eurPerHour,
    promptEurPerMillionTokens: price(prefill.tokensPerSecond),
    outputEurPerMillionTokens: price(decode.tokensPerSecond),
    ...(batches && {
      batches: batches.map(({ sequences, tokensPerSecond }) => ({
        sequences,
        outputEurPerMillionTokens: price(tokensPerSecond),
      })),
    }),
  };
}
