/** Calls what belongs to the application, and hands on what it throws or rejects with: that must break nothing here. */
export function guard(call: () => unknown, report: (error: unknown) => void): void {
  try {
    // Not by `instanceof`: with a polyfill, the promises of async functions are of another class.
    (call() as Partial<PromiseLike<unknown>> | undefined)?.then?.(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** The listeners of a client, by event. */
export class Emitter<Events extends { error: { error: unknown } }> {
  readonly #listeners = new Map<keyof Events, Set<(payload: never) => unknown>>();

  /** Returns how to stop it. */
  on<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => this.off(event, listener);
  }

  off<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): void {
    this.#listeners.get(event)?.delete(listener);
  }

  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): void {
    // By `on`, each takes the payload of its event.
    for (const listener of [...this.#listeners.get(event) ?? []] as ((payload: Events[Event]) => unknown)[]) {
      // What a listener of `error` throws is not told to itself again.
      guard(() => listener(payload), event === "error" ? console.error : this.report);
    }
  }

  /** Tells of what a callback of the application threw; nobody listening, it is logged. */
  readonly report = (error: unknown): void => {
    if (this.#listeners.get("error")?.size) this.emit("error", { error } as Events["error"]);
    else console.error(error);
  };
}
