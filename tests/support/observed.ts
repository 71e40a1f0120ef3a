import { WebSocketController } from "../../src/controller/controller.ts";
import type { WebSocketEvents } from "../../src/application/events.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { TestClock } from "./test-clock.ts";

/** Every event of a controller, in order, as `[event, payload]`. */
export type Events = {
  [Event in keyof WebSocketEvents]: [event: Event, payload: WebSocketEvents[Event]];
}[keyof WebSocketEvents][];

/** A controller whose time the test moves and whose events it reads. */
export function observe(options: WebSocketControllerOptions = {}) {
  const clock = new TestClock();
  const controller = new WebSocketController({ clock, logger: false, ...options });
  const events: Events = [];
  for (const event of ["connect", "message", "error", "close", "auth.success", "auth.failure"] as const) {
    controller.on(event, (payload) => void events.push([event, payload] as Events[number])); // The payload of this very event.
  }
  return {
    clock,
    controller,
    events,
    /** The names of the events since it was last asked. */
    takeNames: (): string[] => events.splice(0).map(([event]) => event),
  };
}
