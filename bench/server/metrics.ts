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

export async function readMetrics(url: string): Promise<Map<string, number>> {
  const response = await fetch(`${url}/metrics`);
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return parseMetrics(await response.text());
}

/** Milliseconds that the server's event loop was late. */
export interface Lag {
  max: number;
  p99: number;
}

/** Null where the server has no such metric. */
export function lagOf(samples: ReadonlyMap<string, number>): Lag | null {
  const max = samples.get("nodejs_eventloop_lag_max_seconds");
  const p99 = samples.get("nodejs_eventloop_lag_p99_seconds");
  return max === undefined || p99 === undefined ? null : { max: 1000 * max, p99: 1000 * p99 };
}
