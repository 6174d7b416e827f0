/** Prometheus' text, as far as the reports need it. */

/** Each sample's value, by its name with its labels. */
export function parseMetrics(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    samples.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return samples;
}

export async function readMetrics(url: string, key?: string): Promise<Map<string, number>> {
  const headers: HeadersInit = key === undefined ? {} : { Authorization: `Bearer ${key}` };
  const response = await fetch(`${url}/metrics`, { headers });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return parseMetrics(await response.text());
}

/** Milliseconds that the server's event loop was late. */
export interface Lag {
  max: number;
  /** The most that its own work caused; NaN where the system does not tell. */
  own: number;
  /** Not above it: the histogram has steps. */
  p99: number;
}

const LAG = "trilith_event_loop_lag";

/**
 * Of the time between two readings. Null where the server has no such metric. The most is since
 * anybody last read it, which should have been the first of them.
 */
export function lagBetween(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): Lag | null {
  const max = after.get(`${LAG}_max_seconds`);
  if (max === undefined) return null;
  const grown = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  const count = grown(`${LAG}_seconds_count`);
  const bounds = [...after.keys()].flatMap((name) => {
    const [, bound] = /^trilith_event_loop_lag_seconds_bucket\{le="([\d.]+)"\}$/.exec(name) ?? [];
    return bound !== undefined && grown(name) >= 0.99 * count ? [Number(bound)] : [];
  });
  const own = 1000 * (after.get("trilith_event_loop_own_lag_max_seconds") ?? NaN);
  return { max: 1000 * max, own, p99: 1000 * Math.min(max, ...bounds) };
}
