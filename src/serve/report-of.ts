import type { Report } from "../base/guard.ts";
import type { WebSocketController } from "../controller/controller.ts";

/** Returns a function that reports errors as the controller does: by an `error` event, else in its log. */
export function reportOf<C>(controller: WebSocketController<C>): Report {
  let report: Report = console.error;
  controller.observe("Durable Object", (host) => {
    report = (error) => host.report(error);
    return {};
  })();
  return report;
}
