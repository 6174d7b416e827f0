/** Settings that become fields of a request. What is left empty is left to the server. */

/**
 * @typedef {object} Parameter
 * @property {string} key The request's field.
 * @property {string} label
 * @property {string} hint
 * @property {number} [min]
 * @property {number} [max]
 * @property {boolean} [integer]
 * @property {string} [unset] What the server does without it, in words.
 * @property {number} [neutral] The engine's own default, where the model's authors advise nothing.
 */

/** @type {readonly Parameter[]} */
export const SAMPLERS = [
  {
    key: "temperature",
    neutral: 1,
    label: "Temperature",
    hint: "0 always takes the likeliest token; higher is more varied",
    min: 0,
    max: 100,
  },
  {
    key: "top_k",
    neutral: 0,
    label: "Top K",
    hint: "Only so many of the likeliest tokens; 0 is all",
    min: 0,
    integer: true,
  },
  {
    key: "top_p",
    neutral: 1,
    label: "Top P",
    hint: "Only the likeliest tokens that together have this probability",
    min: 0,
    max: 1,
  },
  {
    key: "min_p",
    neutral: 0,
    label: "Min P",
    hint: "Only tokens at least this likely, relative to the likeliest",
    min: 0,
    max: 1,
  },
  {
    key: "typical_p",
    neutral: 1,
    label: "Typical P",
    hint: "Only tokens about as surprising as is usual; 1 is all",
    min: 0,
    max: 1,
  },
  {
    key: "repeat_penalty",
    neutral: 1,
    label: "Repeat penalty",
    hint: "Above 1, tokens that came already are less likely",
    min: 0,
  },
  {
    key: "repeat_last_n",
    neutral: 64,
    label: "Penalty window",
    hint: "Tokens that penalties look back on; -1 is all",
    min: -1,
    integer: true,
  },
  {
    key: "presence_penalty",
    neutral: 0,
    label: "Presence penalty",
    hint: "Taken from the score of every token that came already",
    min: -2,
    max: 2,
  },
  {
    key: "frequency_penalty",
    neutral: 0,
    label: "Frequency penalty",
    hint: "The same, times the number of times it came",
    min: -2,
    max: 2,
  },
];

/** @type {readonly Parameter[]} */
export const LIMITS = [
  {
    key: "max_tokens",
    label: "Longest answer",
    hint: "In tokens",
    unset: "as long as fits",
    min: 1,
    integer: true,
  },
  {
    key: "seed",
    label: "Seed",
    hint: "The same seed and question give the same answer",
    unset: "another one each time",
    integer: true,
  },
];

const PARAMETERS = [...SAMPLERS, ...LIMITS];

/** @returns {string} What is wrong with the text of a number's field, or "". */
export function numberProblem({ label, min = -Infinity, max = Infinity, integer = false }, text) {
  if (text.trim() === "") return "";
  const value = Number(text);
  if (!Number.isFinite(value)) return `${label} must be a number`;
  if (integer && !Number.isInteger(value)) return `${label} must be a whole number`;
  if (value < min) return `${label} must be at least ${min}`;
  return value > max ? `${label} must be at most ${max}` : "";
}

/** @returns {string} What is wrong with the text of the extra fields, or "". */
export function extraProblem(text) {
  if (text.trim() === "") return "";
  try {
    const value = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? "" : 'Extra fields must be a JSON object, such as {"logprobs": true}';
  } catch (error) {
    return `Extra fields must be JSON: ${error.message}`;
  }
}

/** One string a line; `\n` and `\t` are a line break and a tab. */
export function stopStrings(text) {
  return text.split("\n").filter((line) => line !== "")
    .map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
}

/**
 * @param {Record<string, string>} texts Of the settings, as they were typed.
 * @returns {Record<string, unknown>} Fields of the request. What is wrong is left out.
 */
export function requestFields(texts) {
  const fields = {};
  for (const parameter of PARAMETERS) {
    const text = texts[parameter.key] ?? "";
    if (text.trim() !== "" && numberProblem(parameter, text) === "") {
      fields[parameter.key] = Number(text);
    }
  }
  const stop = stopStrings(texts.stop ?? "");
  if (stop.length > 0) fields.stop = stop;
  const extra = texts.extra ?? "";
  return extra.trim() === "" || extraProblem(extra) !== ""
    ? fields
    : { ...fields, ...JSON.parse(extra) };
}

/** Values of what is left empty, from `/props`, by the request's fields. */
export function serverDefaults({ defaults }) {
  const values = SAMPLERS.map(({ key, neutral }) => [key, defaults[camelCase(key)] ?? neutral]);
  return { ...Object.fromEntries(values), ...(defaults.doSample ? {} : { temperature: 0 }) };
}

const camelCase = (key) => key.replaceAll(/_(\w)/g, (_, letter) => letter.toUpperCase());
