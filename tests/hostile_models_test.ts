/** Model folders that are damaged or lie: one line says so, with exit code 1 or 2, and nothing crashes. */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { cacheDirectory } from "../kernels/cache.ts";
import { errorLine, runCli } from "./cli_process.ts";
import { goldenModel } from "./golden_models.ts";
import { rawFile, withFolder } from "./safetensors_file.ts";

const { folder: SOUND } = goldenModel("llama3-158-packed");
const WEIGHTS = "model.safetensors";

/** A safetensors file in parts that can be changed. */
interface Parts {
  header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  data: Buffer;
}

/** Rewrites the weights of a copied model. */
function changeWeights(folder: string, change: (parts: Parts) => void): void {
  const file = path.join(folder, WEIGHTS);
  const bytes = fs.readFileSync(file);
  const dataStart = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, dataStart));
  const parts: Parts = { header, data: bytes.subarray(dataStart) };
  change(parts);
  fs.writeFileSync(file, rawFile(JSON.stringify(parts.header), parts.data));
}

// deno-lint-ignore no-explicit-any -- a config is whatever the test makes of it
function changeJson(folder: string, name: string, change: (json: any) => void): void {
  const file = path.join(folder, name);
  const json = JSON.parse(fs.readFileSync(file, "utf8"));
  change(json);
  fs.writeFileSync(file, JSON.stringify(json));
}

const LAYER = "model.layers.1.mlp.down_proj";

interface Hostile {
  change: (folder: string) => void;
  /** What the line must tell, beside being one. */
  says: RegExp;
  args?: readonly string[];
}

const HOSTILE: Record<string, Hostile> = {
  "weights cut in half": {
    change(folder) {
      const file = path.join(folder, WEIGHTS);
      fs.truncateSync(file, fs.statSync(file).size >> 1);
    },
    says: /model\.safetensors/,
  },
  "weights of no bytes": {
    change: (folder) => fs.writeFileSync(path.join(folder, WEIGHTS), ""),
    says: /model\.safetensors/,
  },
  "a header longer than the file": {
    change: (folder) =>
      fs.writeFileSync(path.join(folder, WEIGHTS), rawFile("{}", new Uint8Array(4), 1n << 62n)),
    says: /model\.safetensors/,
  },
  "offsets beyond the end": {
    change: (folder) =>
      changeWeights(folder, ({ header, data }) => {
        header["lm_head.weight"].data_offsets = [data.length, 2 * data.length];
      }),
    says: /lm_head\.weight/,
  },
  "offsets of another size than the shape": {
    change: (folder) =>
      changeWeights(folder, ({ header }) => {
        header["model.norm.weight"].data_offsets[1] -= 2;
      }),
    says: /model\.norm\.weight/,
  },
  "a tensor of another shape": {
    change: (folder) =>
      changeWeights(folder, ({ header }) => {
        header["lm_head.weight"].shape.reverse();
      }),
    says: /lm_head\.weight/,
  },
  "a tensor that is missing": {
    change: (folder) =>
      changeWeights(folder, ({ header }) => {
        header[`${LAYER}.other`] = header[`${LAYER}.weight`];
        delete header[`${LAYER}.weight`];
      }),
    says: /down_proj/,
  },
  "a scale that is NaN": {
    change: (folder) =>
      changeWeights(folder, ({ header, data }) => {
        data.writeUInt16LE(0x7fc0, header[`${LAYER}.weight_scale`].data_offsets[0]);
      }),
    says: /weight_scale.*NaN|NaN.*weight_scale/,
  },
  "a scale that is zero": {
    change: (folder) =>
      changeWeights(folder, ({ header, data }) => {
        data.writeUInt16LE(0, header[`${LAYER}.weight_scale`].data_offsets[0]);
      }),
    says: /weight_scale/,
  },
  "a norm that is infinite": {
    change: (folder) =>
      changeWeights(folder, ({ header, data }) => {
        data.writeUInt16LE(0x7f80, header["model.norm.weight"].data_offsets[0]);
      }),
    says: /model\.norm\.weight/,
  },
  "a code that is 3": {
    change: (folder) =>
      changeWeights(folder, ({ header, data }) => {
        data[header[`${LAYER}.weight`].data_offsets[0] + 77] = 0b11;
      }),
    says: /down_proj.*\b3\b/,
  },
  "no tokenizer": {
    change: (folder) => fs.rmSync(path.join(folder, "tokenizer.json")),
    says: /tokenizer\.json/,
  },
  "a tokenizer with more tokens than the vocabulary": {
    change: (folder) =>
      changeJson(folder, "tokenizer.json", (json) => {
        const added = { special: true, lstrip: false, rstrip: false, normalized: false };
        json.added_tokens.push({
          id: 1024,
          content: "<|one too many|>",
          single_word: false,
          ...added,
        });
      }),
    says: /vocabulary|vocab_size/,
  },
  "a tokenizer that is no JSON": {
    change: (folder) => fs.truncateSync(path.join(folder, "tokenizer.json"), 1000),
    says: /tokenizer\.json/,
  },
  "no config": {
    change: (folder) => fs.rmSync(path.join(folder, "config.json")),
    says: /config\.json/,
  },
  "a config that is no JSON": {
    change: (folder) => fs.writeFileSync(path.join(folder, "config.json"), "{"),
    says: /config\.json/,
  },
  "a config of another architecture": {
    change: (folder) => changeJson(folder, "config.json", (json) => json.model_type = "mamba"),
    says: /mamba/,
  },
  "a config with more layers than there are": {
    change: (folder) => changeJson(folder, "config.json", (json) => json.num_hidden_layers = 1e9),
    says: /num_hidden_layers|layers/,
  },
  "a config with a negative size": {
    change: (folder) => changeJson(folder, "config.json", (json) => json.hidden_size = -256),
    says: /hidden_size/,
  },
  "no weights": {
    change: (folder) => fs.rmSync(path.join(folder, WEIGHTS)),
    says: /safetensors/,
  },
  "an index that leads out of the folder": {
    change(folder) {
      fs.rmSync(path.join(folder, WEIGHTS));
      const index = { weight_map: { "lm_head.weight": "../../secret.safetensors" } };
      fs.writeFileSync(path.join(folder, `${WEIGHTS}.index.json`), JSON.stringify(index));
    },
    says: /index\.json/,
  },
  "a prompt that is longer than the context": {
    change: () => {},
    says: /prompt of 20 tokens.*16/,
    args: ["--ctx", "16", "--prompt-ids", Array.from({ length: 20 }, (_, i) => i).join(",")],
  },
  "a token that is not in the vocabulary": {
    change: () => {},
    says: /1024/,
    args: ["--prompt-ids", "1,1024"],
  },
};

/** A folder that has the sound model's files, which may be changed. */
async function withCopy(use: (folder: string) => Promise<void>): Promise<void> {
  await withFolder({}, async (parent) => {
    const folder = path.join(parent, "model");
    fs.mkdirSync(folder);
    for (const entry of fs.readdirSync(SOUND, { withFileTypes: true })) {
      const target = path.join(folder, entry.name);
      if (!entry.isFile()) continue;
      fs.copyFileSync(path.join(SOUND, entry.name), target);
      fs.chmodSync(target, 0o600);
    }
    await use(folder);
  });
}

for (const [name, { change, says, args = ["--prompt-ids", "1,2,3"] }] of Object.entries(HOSTILE)) {
  Deno.test(`hostile model: ${name}`, async () => {
    await withCopy(async (folder) => {
      change(folder);
      const command = ["generate", "--quiet", "--json", "--max-tokens", "2", "--model", folder];
      const ended = await runCli([...command, ...args], { cache: cacheDirectory() });
      assert.match(errorLine(ended), says);
    });
  });
}

Deno.test("hostile model: a path that is nothing, an empty folder, a text file", async () => {
  await withFolder({ "notes.txt": "hello" }, async (folder) => {
    for (const name of ["nothing", "", "notes.txt"]) {
      const model = path.join(folder, name);
      const ended = await runCli(["generate", "-q", "x", "--model", model], {
        cache: cacheDirectory(),
      });
      assert.ok(errorLine(ended).includes(folder));
    }
  });
});

Deno.test("hostile model: the unchanged copy runs", async () => {
  await withCopy(async (folder) => {
    const args = [
      "generate",
      "--quiet",
      "--max-tokens",
      "2",
      "--prompt-ids",
      "1",
      "--model",
      folder,
    ];
    const { code, stderr } = await runCli(args, { cache: cacheDirectory() });
    assert.deepEqual([code, stderr], [0, ""]);
  });
});
