/**
 * Published ternary models, so that nobody has to search: a short list that works offline. Only what
 * the authors' own cards and files say, or what follows from it; what could not be verified is null.
 */

export interface CatalogueEntry {
  /** Short, for `--model` and `pull`. */
  readonly name: string;
  readonly repo: string;
  /** Which GGUF file of the repository; null where it has safetensors. */
  readonly file: string | null;
  /** A commit whose files somebody has checked, or null. */
  readonly revision: string | null;
  readonly licence: string;
  /** Tokens of its longest context. */
  readonly contextSize: number | null;
  /** Of its weight files, where their exact size is known. */
  readonly weightBytes: number | null;
  /** Its name in `remote_models.ts`, where sizes are computed from the shape. */
  readonly shape: string | null;
  /** Bits a weight in those files, where their form follows from the shape. */
  readonly bits: FileBits | null;
  readonly note: string | null;
}

/** Bits a weight of ternary linears, and of embedding and head. */
export interface FileBits {
  readonly linears: number;
  readonly ends: number;
}

/** Codes in U8 tensors and the rest in bf16, as transformers packs them. */
const PACKED: FileBits = { linears: 2, ends: 16 };
/** Groups of 128 codes with an f16 factor throughout. */
const PQ2_0: FileBits = { linears: 2.125, ends: 2.125 };
const F16: FileBits = { linears: 16, ends: 16 };

const FALCON = "TII Falcon-LLM 2.0";
const DEFAULTS = {
  file: null,
  revision: null,
  contextSize: null,
  weightBytes: null,
  shape: null,
  bits: null,
  note: null,
};

const BITNETS = { large: "bitnet-700m", xl: "bitnet-1.3b", "3B": "bitnet-3b" } as const;
const GGUF_WORD = { bitnet: "i2_s", bonsai: "Q2_0", bitcpm: "tq2_0" } as const;

export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    ...DEFAULTS,
    name: "bitnet-2b-4t",
    repo: "microsoft/bitnet-b1.58-2B-4T",
    revision: "04c3b9ad9361b824064a1f25ea60a8be9599b127",
    licence: "MIT",
    contextSize: 4096,
    weightBytes: 1_178_623_988,
    shape: "bitnet-2b-4t",
    note: "chat",
  },
  {
    ...DEFAULTS,
    name: "bitnet-2b-4t-gguf",
    repo: "microsoft/bitnet-b1.58-2B-4T-gguf",
    file: GGUF_WORD.bitnet,
    licence: "MIT",
    contextSize: 4096,
    weightBytes: 1_187_801_280,
    shape: "bitnet-2b-4t",
    note: "chat",
  },
  {
    ...DEFAULTS,
    name: "bitnet-2b-4t-bf16",
    repo: "microsoft/bitnet-b1.58-2B-4T-bf16",
    licence: "MIT",
    contextSize: 4096,
    weightBytes: 4_825_679_400,
    shape: "bitnet-2b-4t",
    note: "masters, to train on",
  },
  ...(["large", "xl", "3B"] as const).map((size) => ({
    ...DEFAULTS,
    name: BITNETS[size],
    repo: `1bitLLM/bitnet_b1_58-${size}`,
    licence: "MIT",
    contextSize: 2048,
    shape: size === "xl" ? null : BITNETS[size],
    note: "base model, float masters",
  })),
  {
    ...DEFAULTS,
    name: "llama3-8b",
    repo: "HF1BitLLM/Llama3-8B-1.58-100B-tokens",
    licence: "Llama 3 Community",
    contextSize: 8192,
    shape: "llama3-8b",
    bits: PACKED,
    note: "base model",
  },
  ...(["1B", "3B", "7B", "10B"] as const).map((size) => ({
    ...DEFAULTS,
    name: `falcon3-${size.toLowerCase()}`,
    repo: `tiiuae/Falcon3-${size}-Instruct-1.58bit`,
    licence: FALCON,
    contextSize: size === "1B" ? 8192 : 32_768,
    shape: `falcon3-${size.toLowerCase()}`,
    bits: PACKED,
    note: "chat",
  })),
  ...(["1B", "3B"] as const).map((size) => ({
    ...DEFAULTS,
    name: `falcon-e-${size.toLowerCase()}`,
    repo: `tiiuae/Falcon-E-${size}-Instruct`,
    licence: "Falcon-LLM",
    shape: `falcon-e-${size.toLowerCase()}`,
    bits: PACKED,
    note: "chat",
  })),
  ...(["1.7B", "4B", "8B"] as const).map((size) => ({
    ...DEFAULTS,
    name: `bonsai-${size.toLowerCase()}`,
    repo: `prism-ml/Ternary-Bonsai-${size}-gguf`,
    file: GGUF_WORD.bonsai,
    licence: "Apache-2.0",
    contextSize: size === "8B" ? 65_536 : 32_768,
    shape: `bonsai-${size.toLowerCase()}`,
    bits: PQ2_0,
    note: "chat, thinks",
  })),
  ...(["0.5B", "1B", "3B", "8B"] as const).map((size) => ({
    ...DEFAULTS,
    name: `bitcpm4-${size.toLowerCase()}`,
    repo: `openbmb/BitCPM-CANN-${size}-gguf`,
    file: GGUF_WORD.bitcpm,
    licence: "Apache-2.0",
    contextSize: 32_768,
    note: "chat, Chinese and English",
  })),
  {
    ...DEFAULTS,
    name: "maple-20b-a1b",
    repo: "deepgrove/maple-preview",
    revision: "ac1ddd79d2b5cb4406f5d2bebdf95406ce505a07",
    licence: "MIT",
    contextSize: 128_000,
    weightBytes: 40_400_000_000,
    shape: "maple-20b-a1b",
    note: "mixture of experts, bf16",
  },
  {
    ...DEFAULTS,
    name: "bitnet-embedding-270m",
    repo: "microsoft/bitnet-embedding-270m",
    shape: "bitnet-embedding-270m",
    file: GGUF_WORD.bitnet,
    licence: "MIT",
    contextSize: 32_768,
    weightBytes: 367_000_000,
    note: "embeddings",
  },
  {
    ...DEFAULTS,
    name: "bitnet-embedding-0.6b",
    repo: "microsoft/bitnet-embedding-0.6b",
    shape: "bitnet-embedding-0.6b",
    file: GGUF_WORD.bitnet,
    licence: "MIT",
    contextSize: 32_768,
    weightBytes: 428_000_000,
    note: "embeddings",
  },
  {
    ...DEFAULTS,
    name: "trilm-3.9b",
    repo: "SpectraSuite/TriLM_3.9B_Unpacked",
    licence: "Apache-2.0",
    shape: "trilm-3.9b",
    bits: F16,
    note: "base model, f16",
  },
  {
    ...DEFAULTS,
    name: "trilm-99m",
    repo: "SpectraSuite/TriLM_99M_Unpacked",
    licence: "Apache-2.0",
    note: "base model, f16, the smallest",
  },
];

/** The entry of that name, in any case of letters, or null. */
export function catalogueEntry(name: string): CatalogueEntry | null {
  return CATALOGUE.find((entry) => entry.name === name.toLowerCase()) ?? null;
}
