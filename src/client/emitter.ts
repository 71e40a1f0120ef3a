/** Calls what belongs to the application, and hands on what it throws or rejects with: that must break nothing here. */
export function guard(call: () => unknown, report: (error: unknown) => void): void {
  try {
    // Not by `instanceof`: with a polyfill, the promises of async functions are of another class.
    (call() as Partial<PromiseLike<unknown>> | undefined)?.then?.(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** An object of its own: a function may be registered twice. */
interface Registration {
  readonly listener: (payload: never) => unknown;
}

/** The listeners of a client, by event. */
export class Emitter<Events extends { error: { error: unknown } }> {
  readonly #registrations = new Map<keyof Events, Set<Registration>>();

  /** Returns how to end this registration. */
  on<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): () => void {
    const registration = { listener };
    const registrations = this.#of(event).add(registration);
    return () => void registrations.delete(registration);
  }

  /** Ends one registration of the function, the first. */
  off<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): void {
    const registrations = this.#of(event);
    for (const each of registrations) if (each.listener === listener) return void registrations.delete(each);
  }

  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): void {
    for (const { listener } of [...this.#of(event)]) {
      // What a listener of `error` throws is not told to itself again. By `on`, each takes the payload of its event.
      guard(() => listener(payload as never), event === "error" ? log : this.report);
    }
  }

  #of(event: keyof Events): Set<Registration> {
    const registrations = this.#registrations.get(event) ?? new Set();
    this.#registrations.set(event, registrations);
    return registrations;
  }

  /** Tells of what a callback of the application threw; nobody listening, it is logged. */
  readonly report = (error: unknown): void => {
    if (this.#of("error").size) this.emit("error", { error } as Events["error"]);
    else log(error);
  };
}

/** Consoles read what they show, and throw what a getter of it throws. */
function log(error: unknown): void {
  try {
    console.error(error);
  } catch {
    console.error("Cannot show the error");
  }
}
