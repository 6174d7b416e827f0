import assert from "node:assert/strict";
import { accepts, compileExpression } from "./automaton.ts";
import { codePoints } from "./encoding.ts";
import { parseRegex } from "./regex.ts";
import { randomNumbers } from "./test_vocabularies.ts";
import { Workload } from "./workload.ts";

const CHARACTERS = ["a", "b", "1", "_", " ", "\n", "é", "😀", "-", "]", "."];
const ATOMS = [
  "a",
  "b",
  "é",
  "😀",
  ".",
  "\\d",
  "\\W",
  "\\s",
  "[^a]",
  "[a-b1]",
  "[\\w-]",
  "\\x61",
  "\\u{1f600}",
  "\\ud83d\\ude00",
  "\\.",
  "[\\]\\-.]",
  "\\n",
  "\\cJ",
  "[^\\S ]",
];
const QUANTIFIERS = ["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?"];

class RandomPatterns {
  constructor(readonly random: () => number) {}

  pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.random() * values.length)];
  }

  text(): string {
    const length = Math.floor(this.random() * 5);
    return Array.from({ length }, () => this.pick(CHARACTERS)).join("");
  }

  pattern(depth = 2): string {
    const parts = Array.from({ length: 1 + Math.floor(this.random() * 3) }, () => {
      const isGroup = depth > 0 && this.random() < 0.4;
      const open = this.pick(["(", "(?:", "(?<n>"]).replace(
        "n",
        `n${Math.floor(this.random() * 1e9)}`,
      );
      const atom = isGroup ? `${open}${this.pattern(depth - 1)})` : this.pick(ATOMS);
      return atom + this.pick(QUANTIFIERS);
    });
    return this.random() < 0.3 ? `${parts.join("")}|${this.pick(ATOMS)}` : parts.join("");
  }
}

Deno.test("random patterns match what JavaScript's match", async () => {
  let numMatches = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const all = new RandomPatterns(randomNumbers(seed));
    const inner = all.pattern();
    const pattern = all.pick([inner, `^${inner}`, `${inner}$`, `^(?:${inner})$`]);
    const part = await languageOf(pattern, "part");
    const whole = await languageOf(inner, "whole");
    for (let run = 0; run < 30; run++) {
      const text = all.text();
      const replay = `seed ${seed}: ${pattern} of ${JSON.stringify(text)}`;
      const isPart = new RegExp(pattern, "u").test(text);
      assert.equal(accepts(part, text), isPart, replay);
      assert.equal(accepts(whole, text), new RegExp(`^(?:${inner})$`, "u").test(text), replay);
      numMatches += Number(isPart);
    }
  }
  assert.ok(numMatches > 1000 && numMatches < 8000, String(numMatches));
});

async function languageOf(pattern: string, match: "whole" | "part") {
  return await compileExpression(parseRegex(pattern, match), codePoints, new Workload());
}
