/** Shared by the tests of reports. */
import type { PeersReport } from "../types.ts";

const RATE = { tokensPerSecond: 10, stdev: 1 };

export const PEERS: PeersReport = {
  shape: "bitnet-700m",
  threads: 2,
  promptTokens: 128,
  genTokens: 32,
  repeat: 5,
  cpu: "Some | CPU",
  kernel: "avx512-lookup48",
  package: "node-llama-cpp 1.2.3",
  trilithBytesPerToken: 1e8,
  peers: [{
    format: "TQ2_0",
    build: "ggml-org/llama.cpp b1",
    fileBytes: 2e8,
    bytesPerToken: 2e8,
    peakReadBytesPerSecond: 3e10,
    prefill: RATE,
    decode: RATE,
    trilithPrefill: { tokensPerSecond: 20, stdev: 1 },
    trilithDecode: { tokensPerSecond: 30, stdev: 1 },
    prefillRatio: 2,
    decodeRatio: 3,
  }, { format: "Q4_0", problem: "unknown architecture <x>" }],
};
