/** What `format` of JSON schemas means, as regular expressions. Each is exact, or stricter. */

const DAY_28 = "(0[1-9]|1[0-9]|2[0-8])";
const MONTH_30 = "(0[469]|11)";
const MONTH_31 = "(0[13578]|1[02])";
/** Divisible by 4, but not by 100, or by 400. */
const LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)";
const DATE = `([0-9]{4}-(0[1-9]|1[0-2])-${DAY_28}|[0-9]{4}-(${MONTH_30}|${MONTH_31})-(29|30)|` +
  `[0-9]{4}-${MONTH_31}-31|${LEAP_YEAR}-02-29)`;
/** Without leap seconds: which days have one is nothing that a grammar knows. */
const TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?" +
  "(Z|[+\\-]([01][0-9]|2[0-3]):[0-5][0-9])";

const LABEL = "[A-Za-z0-9]([A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?";
/** At most 4 labels of at most 63: never over 253 characters. */
const HOSTNAME = `${LABEL}(\\.${LABEL}){0,2}(\\.[A-Za-z]{2,24})?`;
const MAIL_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]{1,20}";
const EMAIL = `${MAIL_ATOM}(\\.${MAIL_ATOM}){0,2}@${LABEL}(\\.${LABEL}){1,2}`;

const OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const IPV4 = `${OCTET}(\\.${OCTET}){3}`;
const GROUP = "[0-9A-Fa-f]{1,4}";

function ipv6(): string {
  const alternatives = [`(${GROUP}:){7}${GROUP}`, `(${GROUP}:){6}${IPV4}`];
  // `::` stands for at least one group of zeros.
  for (let before = 0; before <= 7; before++) {
    const start = before === 0 ? "" : `${GROUP}(:${GROUP}){${before - 1}}`;
    const most = 7 - before;
    const end = most === 0 ? "" : `(${GROUP}(:${GROUP}){0,${most - 1}})?`;
    alternatives.push(`${start}::${end}`);
  }
  return `(${alternatives.join("|")})`;
}

const HEX = "[0-9A-Fa-f]";
const UUID = `${HEX}{8}-${HEX}{4}-${HEX}{4}-${HEX}{4}-${HEX}{12}`;
const URI_CHARACTER = `([A-Za-z0-9\\-._~!$&'()*+,;=:@]|%${HEX}{2})`;
const URI = `[A-Za-z][A-Za-z0-9+.\\-]*://${HOSTNAME}(:[0-9]{1,5})?(/${URI_CHARACTER}*)*` +
  `(\\?(${URI_CHARACTER}|[/?])*)?(#(${URI_CHARACTER}|[/?])*)?`;
const DURATION_TIME = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)";
const DURATION_DATE = "([0-9]+D|[0-9]+M([0-9]+D)?|[0-9]+Y([0-9]+M([0-9]+D)?)?)";
const DURATION = `P([0-9]+W|${DURATION_DATE}(${DURATION_TIME})?|${DURATION_TIME})`;

/** By name; every pattern is of the whole string. */
export const STRING_FORMATS: ReadonlyMap<string, string> = new Map([
  ["date", DATE],
  ["time", TIME],
  ["date-time", `${DATE}T${TIME}`],
  ["duration", DURATION],
  ["email", EMAIL],
  ["hostname", HOSTNAME],
  ["ipv4", IPV4],
  ["ipv6", ipv6()],
  ["uuid", UUID],
  ["uri", URI],
]);

/** OpenAPI's formats of numbers, as bounds. */
export const NUMBER_FORMATS: ReadonlyMap<string, { min: number; max: number } | null> = new Map([
  ["int32", { min: -(2 ** 31), max: 2 ** 31 - 1 }],
  // Numbers without bounds have at most 19 digits before the point.
  ["int64", null],
  ["float", null],
  ["double", null],
]);
