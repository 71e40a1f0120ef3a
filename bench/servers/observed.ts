/** A server that reports itself by the OpenTelemetry SDK while it works, for the cost of reporting. */
import { context } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";
import { AlwaysOffSampler, AlwaysOnSampler, BasicTracerProvider, type SpanProcessor } from "@opentelemetry/sdk-trace-base";
import type { WebSocketController } from "../../mod.ts";
import { publishDiagnostics } from "../../src/otel/diagnostics.ts";
import { observe } from "../../src/otel/otel.ts";

class Reader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** Spans end here: exporting them is work of the SDK. */
const NOWHERE: SpanProcessor = {
  onStart() {},
  onEnd() {},
  forceFlush: async () => {},
  shutdown: async () => {},
};

function traced(sampler: AlwaysOffSampler | AlwaysOnSampler): (controller: WebSocketController) => void {
  return (controller) => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    const provider = new BasicTracerProvider({ sampler, spanProcessors: [NOWHERE] });
    observe(controller, { meter: false, tracer: provider.getTracer("noroshi") });
  };
}

export const OBSERVE: Readonly<Record<string, (controller: WebSocketController) => void>> = {
  /** Collected each second: Prometheus asks less often. */
  metrics(controller) {
    const reader = new Reader();
    const meter = new MeterProvider({ readers: [reader] }).getMeter("noroshi");
    observe(controller, { meter });
    setInterval(() => void reader.collect(), 1_000);
  },
  traces: traced(new AlwaysOnSampler()),
  unsampled: traced(new AlwaysOffSampler()),
  diagnostics: (controller) => void publishDiagnostics(controller),
};
