/** What a controller reports, read with the SDK of OpenTelemetry. */
import { type DataPoint, type Histogram, MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";
import type { Attributes } from "@opentelemetry/api";
import type { WebSocketController } from "../../src/controller/controller.ts";
import { observe } from "../../src/otel/otel.ts";

class Reader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** One series of an instrument: a counter's value, or how many values a histogram has and their sum. */
export interface Series {
  readonly name: string;
  readonly unit: string;
  readonly attributes: Attributes;
  readonly value: number;
  readonly sum: number;
}

export interface Observation {
  /** Every series there is now. */
  series(): Promise<Series[]>;
  /** The values of one instrument by the value of one label, 0 left out; `""` without the label. */
  by(name: string, label?: string): Promise<Record<string, number>>;
  /** The sum over all series of one instrument. */
  total(name: string): Promise<number>;
  end(): void;
}

/** Observes a controller with a provider of its own. */
export function observed(controller: WebSocketController): Observation {
  const reader = new Reader();
  const provider = new MeterProvider({ readers: [reader] });
  const end = observe(controller, { meter: provider.getMeter("noroshi") });
  const series = async () => {
    const { resourceMetrics, errors } = await reader.collect();
    if (errors.length > 0) throw errors[0];
    return resourceMetrics.scopeMetrics.flatMap(({ metrics }) =>
      metrics.flatMap(({ descriptor: { name, unit }, dataPoints }) =>
        (dataPoints as DataPoint<number | Histogram>[]).map(({ attributes, value }) =>
          typeof value === "number"
            ? { name, unit, attributes, value, sum: value }
            : { name, unit, attributes, value: value.count, sum: value.sum ?? 0 }
        )
      )
    );
  };
  const by = async (name: string, label?: string) => {
    const found: Record<string, number> = {};
    for (const { name: of, attributes, value } of await series()) {
      if (of !== name || value === 0) continue;
      const key = label === undefined ? "" : String(attributes[label]);
      found[key] = (found[key] ?? 0) + value;
    }
    return found;
  };
  return { series, by, total: async (name) => (await by(name))[""] ?? 0, end };
}
