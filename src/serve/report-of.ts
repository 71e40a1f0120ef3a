import type { Report } from "../base/guard.ts";
import type { WebSocketController } from "../controller/controller.ts";

/** What reports as the controller does: by an `error` event, else by a line of its log. */
export function reportOf<C>(controller: WebSocketController<C>): Report {
  let report: Report = console.error;
  controller.observe("Durable Object", (host) => {
    report = (error) => host.report(error);
    return {};
  })();
  return report;
}
