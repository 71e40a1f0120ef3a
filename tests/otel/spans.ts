/** The spans of a test, made by the SDK of OpenTelemetry. */
import { type Context, context, type Tracer } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider, InMemorySpanExporter, type Sampler, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";

/** A span that has ended. */
export interface Spanned {
  readonly name: string;
  readonly kind: string;
  readonly traceId: string;
  readonly spanId: string;
  /** The `spanId` of the parent. */
  readonly parent: string | undefined;
  readonly status: string;
  readonly attributes: Record<string, unknown>;
  readonly exceptions: number;
}

export interface Spans {
  readonly tracer: Tracer;
  /** The spans that have ended since the last call, in the order of their ends. */
  take(): Spanned[];
}

export function collectSpans(sampler?: Sampler): Spans {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ ...(sampler && { sampler }), spanProcessors: [new SimpleSpanProcessor(exporter)] });
  return {
    tracer: provider.getTracer("noroshi"),
    take() {
      const spans = exporter.getFinishedSpans().map((span) => {
        const { traceId, spanId } = span.spanContext();
        return {
          name: span.name,
          kind: SpanKind[span.kind],
          traceId,
          spanId,
          parent: span.parentSpanContext?.spanId,
          status: SpanStatusCode[span.status.code],
          attributes: span.attributes,
          exceptions: span.events.filter(({ name }) => name === "exception").length,
        };
      });
      exporter.reset();
      return spans;
    },
  };
}

/** Runs with the context of OpenTelemetry kept across awaits, as an SDK sets it up. */
export async function inContexts(run: () => Promise<void>): Promise<void> {
  const manager = new AsyncLocalStorageContextManager();
  context.setGlobalContextManager(manager.enable());
  try {
    await run();
  } finally {
    context.disable();
  }
}

export type { Context };
