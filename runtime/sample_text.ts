import text from "../models/sample.txt" with { type: "text" };

/** 24 kB of a children's book; `models/README.md` says which. */
export const SAMPLE_TEXT: string = text;
