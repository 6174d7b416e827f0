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

/** Null where the server has no such metric. */
export function lagOf(samples: ReadonlyMap<string, number>): Lag | null {
  const max = samples.get(`${LAG}_max_seconds`);
  const count = samples.get(`${LAG}_seconds_count`);
  if (max === undefined || count === undefined) return null;
  const bounds = [...samples].flatMap(([name, within]) => {
    const [, bound] = /^trilith_event_loop_lag_seconds_bucket\{le="([\d.]+)"\}$/.exec(name) ?? [];
    return bound !== undefined && within >= 0.99 * count ? [Number(bound)] : [];
  });
  const own = 1000 * (samples.get("trilith_event_loop_own_lag_max_seconds") ?? NaN);
  return { max: 1000 * max, own, p99: 1000 * Math.min(max, ...bounds) };
}
