/** Runs a callback of the application and reports what it throws or rejects with. */
export function guard(call: () => unknown, report: (error: unknown) => void): void {
  try {
    // Not `instanceof Promise`: polyfills return async results of another class.
    (call() as Partial<PromiseLike<unknown>> | undefined)?.then?.(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** Wraps the listener, because the same function may be registered twice. */
interface Registration {
  readonly listener: (payload: never) => unknown;
}

/** A client's listeners, by event. */
export class Emitter<Events extends { error: { error: Error } }> {
  readonly #registrations = new Map<keyof Events, Set<Registration>>();

  /** Returns a function that removes this registration. */
  on<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): () => void {
    const registration = { listener };
    const registrations = this.#registrationsOf(event).add(registration);
    return () => void registrations.delete(registration);
  }

  /** Removes the earliest registration of the listener. */
  off<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): void {
    const registrations = this.#registrationsOf(event);
    for (const each of registrations) if (each.listener === listener) return void registrations.delete(each);
  }

  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): void {
    for (const { listener } of [...this.#registrationsOf(event)]) {
      // An `error` listener that throws must not be called with its own error. `on` ties each listener to its event's payload.
      guard(() => listener(payload as never), event === "error" ? log : this.report);
    }
  }

  #registrationsOf(event: keyof Events): Set<Registration> {
    const registrations = this.#registrations.get(event) ?? new Set();
    this.#registrations.set(event, registrations);
    return registrations;
  }

  /** Emits an `error` event, or logs the error if there is no listener. */
  readonly report = (error: unknown): void => {
    if (this.#registrationsOf("error").size) this.emit("error", { error: asError(error) } as Events["error"]);
    else log(error);
  };
}

/** A listener may throw anything. */
function asError(cause: unknown): Error {
  try {
    if (cause instanceof Error) return cause;
  } catch {
    // A Proxy whose traps throw is no Error either.
  }
  return new Error("A listener threw a value that is not an Error", { cause });
}

/** `console.error` reads properties, and throws what their getters throw. */
function log(error: unknown): void {
  try {
    console.error(error);
  } catch {
    console.error("Cannot show the error");
  }
}
