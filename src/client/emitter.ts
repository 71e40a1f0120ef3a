import { textOf } from "./failure.ts";

/** Runs a callback of the application and reports what it throws or rejects with. */
export function guard(call: () => unknown, report: (error: unknown) => void): void {
  try {
    // Not `instanceof Promise`: polyfills return async results of another class.
    (call() as Partial<PromiseLike<unknown>> | undefined)?.then?.(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** An object of its own, because the same function may be registered twice. */
interface Registration<Event> {
  readonly event: Event;
  readonly listener: (payload: never) => unknown;
}

/** A client's listeners. */
export class Emitter<Events extends { error: { error: Error } }> {
  readonly #registrations = new Set<Registration<keyof Events>>();

  /** Returns a function that removes this registration. */
  on<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): () => void {
    const registration = { event, listener };
    this.#registrations.add(registration);
    return () => void this.#registrations.delete(registration);
  }

  /** Removes the earliest registration of the listener. */
  off<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): void {
    const registration = this.#of(event).find((each) => each.listener === listener);
    if (registration) this.#registrations.delete(registration);
  }

  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): void {
    for (const { listener } of this.#of(event)) {
      // An `error` listener that throws must not be called with its own error. `on` ties each listener to its event's payload.
      guard(() => listener(payload as never), event === "error" ? log : this.report);
    }
  }

  /** A copy: a listener may add and remove others. */
  #of(event: keyof Events): Registration<keyof Events>[] {
    return [...this.#registrations].filter((each) => each.event === event);
  }

  /** Emits an `error` event, or logs the error if there is no listener. */
  readonly report = (error: unknown): void => {
    if (this.#of("error")[0]) this.emit("error", { error: asError(error) } as Events["error"]);
    else log(error);
  };
}

/** A listener may throw anything, such as a Proxy whose traps throw. */
function asError(cause: unknown): Error {
  let error = new Error(textOf(cause), { cause });
  guard(() => {
    if (cause instanceof Error) error = cause;
  }, () => {});
  return error;
}

/** `console.error` reads properties, and throws what their getters throw. */
const log = (error: unknown): void => guard(() => console.error(error), () => console.error(textOf(error)));
