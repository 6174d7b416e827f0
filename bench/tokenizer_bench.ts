/** Text to tokens and back, with the embedded model's tokenizer: `deno bench -A bench/tokenizer_bench.ts`. */
import { embeddedModelFolder } from "../runtime/embedded.ts";
import { loadTokenizer } from "../runtime/tokenizer.ts";
import { IS_SMALL, RUNS } from "./machine.ts";

const tokenizer = await loadTokenizer(embeddedModelFolder());

const SENTENCE = "Once upon a time there was a little girl who had a red ball and a big dog. ";
const TEXTS: Record<string, string> = {
  "a sentence": SENTENCE,
  "10 kB of prose": SENTENCE.repeat(IS_SMALL ? 2 : 135),
  "10 kB without spaces": "abcdefghij".repeat(IS_SMALL ? 10 : 1000),
  "10 kB of other scripts": "Жили-были 老人 和 孩子 🐕 ".repeat(IS_SMALL ? 5 : 250),
};

for (const [name, text] of Object.entries(TEXTS)) {
  const baseline = name === "a sentence";
  Deno.bench({ name, group: "encode", baseline, ...RUNS }, () => {
    tokenizer.encode(text);
  });
  const ids = tokenizer.encode(text);
  Deno.bench({ name, group: "decode", baseline, ...RUNS }, () => {
    tokenizer.decode(ids);
  });
}
