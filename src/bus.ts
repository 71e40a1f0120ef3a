import mittModule, { type Emitter, type EventType, type Handler } from "mitt";
import { guard } from "./guard.ts";

// mitt 3.0.1's types are CommonJS-shaped for Deno and NodeNext (developit/mitt#191): the default import is the function
// at run time and a namespace in the types.
const mitt = mittModule as unknown as <Events extends Record<EventType, unknown>>() => Emitter<Events>;

/** Receives the payload of an event. It may be async: a rejection is treated as a throw. */
export type Listener<Payload> = (payload: Payload) => unknown;

/**
 * A typed mitt emitter whose listeners are isolated: mitt alone lets one throwing listener starve the rest and drops
 * promises on the floor.
 */
export class Bus<Events extends Record<EventType, unknown>> {
  readonly #emitter = mitt<Events>();
  // The guarded form of a listener, so that `off` finds it; weak, so that a listener that is gone leaves nothing.
  readonly #guarded = new Map<keyof Events, WeakMap<object, unknown>>();
  readonly #report: <Event extends keyof Events>(error: unknown, event: Event, payload: Events[Event]) => void;

  /** @param report told what a listener threw, with the event and payload it was called with. */
  constructor(report: <Event extends keyof Events>(error: unknown, event: Event, payload: Events[Event]) => void) {
    this.#report = report;
  }

  /** Calls the listener at each such event. Added twice it is called twice. */
  on<Event extends keyof Events>(event: Event, listener: Listener<Events[Event]>): void {
    let guarded = this.#guarded.get(event);
    if (!guarded) this.#guarded.set(event, guarded = new WeakMap());
    let handler = guarded.get(listener) as Handler<Events[Event]> | undefined; // Set below, under this event.
    if (!handler) {
      const report = (error: unknown, payload: Events[Event]) => this.#report(error, event, payload);
      handler = (payload) => guard(listener, report, payload);
      guarded.set(listener, handler);
    }
    this.#emitter.on(event, handler);
  }

  /** Removes this one listener. mitt's `off` without a handler removes everybody's, so it is not offered. */
  off<Event extends keyof Events>(event: Event, listener: Listener<Events[Event]>): void {
    const handler = this.#guarded.get(event)?.get(listener) as Handler<Events[Event]> | undefined; // As in `on`.
    if (handler) this.#emitter.off(event, handler);
  }

  /** Whether anybody listens. */
  has(event: keyof Events): boolean {
    return (this.#emitter.all.get(event)?.length ?? 0) > 0;
  }

  /** Calls every listener of the event, in the order they were added; `false` when there are none. */
  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): boolean {
    const handlers = this.#emitter.all.get(event) as Handler<Events[Event]>[] | undefined; // No wildcard has this key.
    if (!handlers || handlers.length === 0) return false;
    // mitt copies the list and asks for another one first, which is most of what a message costs here: for one listener there is no need.
    if (handlers.length === 1) handlers[0]!(payload);
    else this.#emitter.emit(event, payload);
    return true;
  }

  /** Removes every listener. */
  clear(): void {
    this.#emitter.all.clear();
  }
}
