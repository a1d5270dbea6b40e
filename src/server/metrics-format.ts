/** The two formats of the metrics: Prometheus' text, and OpenMetrics for whoever asks for it by name. */

import { parseAccept } from "hono/utils/accept";
import Registry from "prom-client/lib/registry.js";

const openMetricsType = "application/openmetrics-text";

export interface MetricsText {
  readonly contentType: string;
  readonly text: string;
}

/** @param accept the request's header. */
export async function toMetricsText(metrics: Registry, accept: string | null): Promise<MetricsText> {
  const registry = wantsOpenMetrics(accept ?? "") ? toOpenMetrics(metrics) : metrics;
  const text = await registry.metrics();
  // Of a histogram's bounds OpenMetrics wants 1.0 where prom-client writes 1. In both formats: a series has one name.
  return { contentType: registry.contentType, text: text.replaceAll(/\ble="(\d+)"/g, 'le="$1.0"') };
}

/** The same metrics in another registry, by views, for it takes `_total` from the names of the counters that it is given. */
function toOpenMetrics(metrics: Registry): Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE> {
  const registry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  for (const metric of metrics.getMetricsAsArray()) registry.registerMetric(Object.create(metric));
  return registry;
}

/** Whether OpenMetrics is named, in the version that there is, and nothing is named that is liked better. */
function wantsOpenMetrics(accept: string): boolean {
  // The best liked come first.
  const accepted = parseAccept(accept).map(({ type, params, q }) => ({ type: type.toLowerCase(), params, q }));
  const open = accepted.find(({ type, params }) => type === openMetricsType && (params.version ?? "1.0.0") === "1.0.0");
  const text = ["text/plain", "text/*", "*/*"].flatMap((range) => accepted.find(({ type }) => type === range) ?? [])[0];
  return open !== undefined && open.q > 0 && open.q >= (text?.q ?? 0);
}
