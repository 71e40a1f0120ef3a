/**
 * `noroshi/otel`: reports metrics, traces and logs of a controller to OpenTelemetry.
 *
 * @example
 * ```ts
 * import { createWebSocketController } from "noroshi";
 * import { observe } from "noroshi/otel";
 *
 * const controller = createWebSocketController();
 * observe(controller); // After the SDK has started.
 * ```
 *
 * @module
 */
import { type Meter, metrics, ProxyTracerProvider, trace, type Tracer } from "@opentelemetry/api";
import { combine, type Observer } from "../application/observer.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import { WebSocketController } from "../controller/controller.ts";
import { describeCopies } from "../base/copies.ts";
import { type LogEmitter, Logs } from "./logs.ts";
import { Metrics } from "./metrics.ts";
import { Traces } from "./traces.ts";

export type { EmittedRecord, LogEmitter } from "./logs.ts";

/**
 * Documented by @opentelemetry/api: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type OtelMeter = Meter;

/**
 * As {@link OtelMeter}.
 *
 * @internal
 */
type OtelTracer = Tracer;

/** Options of {@link observe}. */
export interface ObserveOptions {
  /** Records the metrics; `false`: none. @default {metrics.getMeter("noroshi")} of `@opentelemetry/api` */
  meter?: OtelMeter | false;
  /** Makes the spans; `false`: none. @default {trace.getTracer("noroshi")} of `@opentelemetry/api`; none if no SDK provides it */
  tracer?: OtelTracer | false;
  /** Receives the log records, in addition to the controller's own `logger`. @default none */
  logger?: LogEmitter;
}

/**
 * Reports the metrics, traces and logs of a controller. Start the SDK first: without one, the API returns meters and tracers that
 * record nothing. Returns a function that stops it.
 *
 * @throws {TypeError} for a controller that is observed already, or one of another copy of the package; for an unknown option,
 * and for one that cannot work, such as a provider in place of its tracer.
 */
export function observe(
  controller: WebSocketController<unknown>,
  options: ObserveOptions = {},
): () => void {
  if (!(controller instanceof WebSocketController)) {
    throw new TypeError(`Cannot observe: pass a WebSocketController, such as createWebSocketController()${describeCopies()}`);
  }
  checkOptions(options);
  const { meter = metrics.getMeter("noroshi"), tracer = globalTracer(), logger } = options;
  const { name } = controller;
  const create = (node: ConnectionHost): Observer[] => [
    // First: a metric that is recorded within a span refers to it.
    ...tracer ? [new Traces(name, tracer)] : [],
    ...meter ? [new Metrics(controller, node, meter)] : [],
    ...logger ? [new Logs(name, logger)] : [],
  ];
  return controller.observe("OpenTelemetry", (node) => combine(create(node)) ?? {});
}

/** For each option: a method that its value must have, how to get such a value, and whether `false` turns it off. */
const OPTIONS: Record<keyof ObserveOptions, readonly [method: string, remedy: string, mayBeOff: boolean]> = {
  meter: ["createHistogram", 'metrics.getMeter("noroshi") of @opentelemetry/api', true],
  tracer: ["startSpan", 'trace.getTracer("noroshi") of @opentelemetry/api', true],
  logger: ["emit", 'logs.getLogger("noroshi") of @opentelemetry/api-logs', false],
};

function checkOptions(options: ObserveOptions): void {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(OPTIONS, name)) {
      throw new TypeError(`Cannot observe: unknown option "${name}", use ${Object.keys(OPTIONS).join(", ")}`);
    }
    const [method, remedy, mayBeOff] = OPTIONS[name as keyof ObserveOptions]; // Its own key.
    if (value === undefined || value === false && mayBeOff || typeof Object(value)[method] === "function") continue;
    throw new TypeError(`Cannot observe: option "${name}" has no ${method}(), pass ${remedy}${mayBeOff ? ", or false" : ""}`);
  }
}

/** The tracer of the SDK; `false` without an SDK, because spans that are not recorded cost time too. */
function globalTracer(): OtelTracer | false {
  const provider = trace.getTracerProvider();
  const isAbsent = provider instanceof ProxyTracerProvider && !provider.getDelegateTracer("noroshi");
  return isAbsent ? false : provider.getTracer("noroshi");
}
