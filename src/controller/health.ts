import type { WebSocketController } from "./controller.ts";
import { findHost } from "../runtimes/runtime.ts";

/** Handlers for the probes of a service manager or a load balancer. */
export interface Health {
  /** Liveness: answers 200 while the process runs, even while it drains or its broker is unavailable. */
  live(): Response;
  /**
   * Readiness: answers 200 while new clients are accepted; 503 while a controller drains or is closed, or its engine is not
   * ready.
   *
   * @param context Hono's, through which a draining server finds controllers that no request has reached yet
   */
  ready(context?: { readonly env?: unknown; readonly req: { readonly raw: Request } }): Response;
}

/**
 * Creates the handlers of two probes, which answer `{ status }`. Do not restart a node that is only unready: that does not make
 * its broker available, and disconnects its clients.
 *
 * @throws {TypeError} without a controller.
 *
 * @example
 * ```ts
 * const { live, ready } = health(controller);
 * app.get("/live", live).get("/ready", ready);
 * ```
 */
export function health(...controllers: Pick<WebSocketController, "status" | "engine">[]): Health {
  if (controllers.length === 0 || !controllers.every((controller) => controller?.engine && controller.status)) {
    throw new TypeError("Cannot create the probes: pass the controller, such as health(controller)");
  }
  const answer = (status: string, code: 200 | 503) =>
    Response.json({ status }, { status: code, headers: { "cache-control": "no-store" } });
  return {
    live: () => answer("live", 200),
    ready: (context) => {
      // A draining server also drains controllers that it did not know before.
      const connections = context && findHost(context.env, context.req.raw)?.connections;
      for (const each of controllers) if ("drain" in each) connections?.reached?.(each); // As in the upgrade.
      const fault = controllers.map(faultOf).find((each) => each !== undefined);
      return answer(fault ?? "ready", fault === undefined ? 200 : 503);
    },
  };
}

function faultOf({ status, engine }: Pick<WebSocketController, "status" | "engine">): string | undefined {
  if (status !== "running") return status;
  return engine.status === "ready" ? undefined : `engine ${engine.status}`;
}
