/**
 * `noroshi/otel`: reports what a controller does to OpenTelemetry.
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
import { type Meter, metrics } from "@opentelemetry/api";
import { WebSocketController } from "../controller/controller.ts";
import { describeCopies } from "../base/copies.ts";
import { Metrics } from "./metrics.ts";

/**
 * Documented by @opentelemetry/api: `deno doc --lint` takes it for a type of this package.
 *
 * @internal
 */
type OtelMeter = Meter;

/** Options of {@link observe}. */
export interface ObserveOptions {
  /** Records the metrics. @default {metrics.getMeter("noroshi")} of `@opentelemetry/api` */
  meter?: OtelMeter;
}

/**
 * Reports the metrics of a controller. Start the SDK first: the API hands out meters that record nothing until there is one.
 * Returns a function that ends it.
 *
 * @throws {TypeError} for a controller that is observed already, or one of another copy of the package.
 */
export function observe(
  controller: WebSocketController<unknown>,
  { meter = metrics.getMeter("noroshi") }: ObserveOptions = {},
): () => void {
  if (!(controller instanceof WebSocketController)) {
    throw new TypeError(`Cannot observe: pass a WebSocketController, such as createWebSocketController()${describeCopies()}`);
  }
  return controller.observe("OpenTelemetry", (node) => new Metrics(controller, node, meter));
}
