/** What `format` of JSON schemas means, as regular expressions. Each is exact, or stricter. */

const DAY_28 = "(0[1-9]|1[0-9]|2[0-8])";
const MONTH_30 = "(0[469]|11)";
const MONTH_31 = "(0[13578]|1[02])";
/** Divisible by 4, but not by 100, or by 400. */
const LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)";
const DATE = `([0-9]{4}-(0[1-9]|1[0-2])-${DAY_28}|[0-9]{4}-(${MONTH_30}|${MONTH_31})-(29|30)|` +
  `[0-9]{4}-${MONTH_31}-31|${LEAP_YEAR}-02-29)`;
/** Without leap seconds: which days have one is nothing that a grammar knows. */
const TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,15})?" +
  "([Zz]|[+\\-]([01][0-9]|2[0-3]):[0-5][0-9])";

/** At most 62 characters, and no `xn--`, which could be no word at all. */
const LABEL = "[A-Za-z0-9]{1,30}(-[A-Za-z0-9]{1,31})?";
/** At most 4 labels: never over 253 characters. */
const HOSTNAME = `${LABEL}(\\.${LABEL}){0,3}`;
const MAIL_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]{1,20}";
const EMAIL = `${MAIL_ATOM}(\\.${MAIL_ATOM}){0,2}@${LABEL}(\\.${LABEL}){0,2}`;

const OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const IPV4 = `${OCTET}(\\.${OCTET}){3}`;
const GROUP = "[0-9A-Fa-f]{1,4}";

/** Eight groups, or fewer with one `::` for the others; the last two may be an IPv4 address. */
function ipv6(): string {
  const alternatives = [`(${GROUP}:){7}${GROUP}`, `(${GROUP}:){6}${IPV4}`];
  for (let before = 0; before <= 7; before++) {
    const start = before === 0 ? "" : `${GROUP}(:${GROUP}){${before - 1}}`;
    const most = 7 - before;
    const ends = [""];
    if (most >= 1) ends.push(`${GROUP}(:${GROUP}){0,${most - 1}}`);
    if (most >= 2) ends.push(`(${GROUP}:){0,${most - 2}}${IPV4}`);
    alternatives.push(`${start}::(${ends.join("|")})`);
  }
  return `(${alternatives.join("|")})`;
}

const HEX = "[0-9A-Fa-f]";
const UUID = `${HEX}{8}-${HEX}{4}-${HEX}{4}-${HEX}{4}-${HEX}{12}`;

/** RFC 3986. What looks like a wrong IPv4 address is a name there. */
const PERCENT = `%${HEX}{2}`;
const NAME_CHARACTER = `([A-Za-z0-9\\-._~!$&'()*+,;=]|${PERCENT})`;
const PATH_CHARACTER = `([A-Za-z0-9\\-._~!$&'()*+,;=:@]|${PERCENT})`;
const AUTHORITY = `(([A-Za-z0-9\\-._~!$&'()*+,;=:]|${PERCENT})*@)?` +
  `(\\[${ipv6()}\\]|${NAME_CHARACTER}*)(:[0-9]*)?`;
const ROOTED = `/(${PATH_CHARACTER}+(/${PATH_CHARACTER}*)*)?`;
const ROOTLESS = `${PATH_CHARACTER}+(/${PATH_CHARACTER}*)*`;
const AFTER_PATH = `([A-Za-z0-9\\-._~!$&'()*+,;=:@/?]|${PERCENT})*`;
const URI =
  `[A-Za-z][A-Za-z0-9+.\\-]*:(//${AUTHORITY}(/${PATH_CHARACTER}*)*|${ROOTED}|${ROOTLESS})?` +
  `(\\?${AFTER_PATH})?(#${AFTER_PATH})?`;

const DURATION_TIME = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)";
const DURATION_DATE = "([0-9]+D|[0-9]+M([0-9]+D)?|[0-9]+Y([0-9]+M([0-9]+D)?)?)";
const DURATION = `P([0-9]+W|${DURATION_DATE}(${DURATION_TIME})?|${DURATION_TIME})`;

/** By name; every pattern is of the whole string. */
export const STRING_FORMATS: ReadonlyMap<string, string> = new Map([
  ["date", DATE],
  ["time", TIME],
  ["date-time", `${DATE}[Tt]${TIME}`],
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
