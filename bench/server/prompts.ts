/** Prompts as people send them: all begin with the same instructions, and go on in their own way. */
import { randomOf } from "../../codegen/random.ts";

const INSTRUCTIONS =
  "You are a friendly storyteller. Write a short story for young children, in simple words, with a " +
  "happy end. The story must have these things in it, in the order in which they are named: ";

const WHO = [
  "a dog",
  "the king",
  "a small girl",
  "her brother",
  "an old man",
  "the fish",
  "a bird",
];
const DOES = [
  "finds",
  "looks for",
  "loses",
  "wants to have",
  "shares",
  "is afraid of",
  "dreams of",
];
const WHAT = ["a red ball", "the big tree", "some bread", "a boat", "the moon", "a new friend"];
const WHERE = ["in the garden", "by the river", "on a hill", "at home", "far away", "in the rain"];

/** A prompt of some `words` words after the instructions. */
export function promptOf(seed: number, words: number): string {
  const random = randomOf(seed);
  const pick = (of: readonly string[]) => of[Math.floor(random() * of.length)];
  let text = "";
  while (text.split(" ").length < words) {
    text += `${pick(WHO)} ${pick(DOES)} ${pick(WHAT)} ${pick(WHERE)}, `;
  }
  return `${INSTRUCTIONS}${text}and then all is well.`;
}

/** A prompt that shares no beginning with another seed's. */
export function ownPrompt(seed: number, words: number): string {
  return `${seed}: ${promptOf(seed, words)}`;
}
