import mittModule, { type Emitter, type EventType, type Handler } from "mitt";
import { guard } from "./guard.ts";

// For Deno and NodeNext, the types of mitt 3.0.1 are CommonJS (developit/mitt#191): the default import is a namespace in the
// types, but the function at run time.
const mitt = mittModule as unknown as <Events extends Record<EventType, unknown>>() => Emitter<Events>;

/** Receives the payload of an event. It may be async: a rejection counts as a throw. */
export type Listener<Payload> = (payload: Payload) => unknown;

/** A typed mitt emitter with isolated listeners. In mitt, a listener that throws prevents the calls of the others, and promises are ignored. */
export class Bus<Events extends Record<EventType, unknown>> {
  readonly #emitter = mitt<Events>();
  // By listener: its guarded form, for `off`. Weak, so that removed listeners are not kept in memory.
  readonly #guarded = new Map<keyof Events, WeakMap<object, unknown>>();
  readonly #report: <Event extends keyof Events>(error: unknown, event: Event, payload: Events[Event]) => void;

  /** @param report called with what a listener threw, and with the event and payload. */
  constructor(report: <Event extends keyof Events>(error: unknown, event: Event, payload: Events[Event]) => void) {
    this.#report = report;
  }

  /** Adds a listener. One that is added twice is called twice. */
  on<Event extends keyof Events>(event: Event, listener: Listener<Events[Event]>): void {
    let guarded = this.#guarded.get(event);
    if (!guarded) this.#guarded.set(event, guarded = new WeakMap());
    let handler = guarded.get(listener) as Handler<Events[Event]> | undefined; // Set below for this event.
    if (!handler) {
      const report = (error: unknown, payload: Events[Event]) => this.#report(error, event, payload);
      handler = (payload) => guard(listener, report, payload);
      guarded.set(listener, handler);
    }
    this.#emitter.on(event, handler);
  }

  /** Removes one listener. The listener is required, because mitt's `off` without one removes all. */
  off<Event extends keyof Events>(event: Event, listener: Listener<Events[Event]>): void {
    const handler = this.#guarded.get(event)?.get(listener) as Handler<Events[Event]> | undefined; // As in `on`.
    if (handler) this.#emitter.off(event, handler);
  }

  /** Whether the event has listeners. */
  has(event: keyof Events): boolean {
    return (this.#emitter.all.get(event)?.length ?? 0) > 0;
  }

  /** Calls the listeners of the event in the order in which they were added. Returns `false` if there are none. */
  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): boolean {
    const handlers = this.#emitter.all.get(event) as Handler<Events[Event]>[] | undefined; // No wildcard has this key.
    if (!handlers || handlers.length === 0) return false;
    // Skips mitt for a single listener, because mitt copies the list and looks up wildcards, which takes longer than the call.
    if (handlers.length === 1) handlers[0]!(payload);
    else this.#emitter.emit(event, payload);
    return true;
  }

  /** Removes every listener. */
  clear(): void {
    this.#emitter.all.clear();
  }
}
