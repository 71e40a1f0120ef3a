import { textOf } from "./failure.ts";

/** Runs a callback of the application and reports what it throws or rejects with. */
export function guard(call: () => unknown, report: (error: unknown) => void): void {
  try {
    // Not `instanceof Promise`, because polyfills have another class.
    (call() as Partial<PromiseLike<unknown>> | undefined)?.then?.(undefined, report);
  } catch (error) {
    report(error);
  }
}

/** A client's listeners. */
export interface Emitter<Events extends { error: { error: Error } }> {
  /** Returns a function that removes this registration. */
  on<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): () => void;
  /** Removes the earliest registration of the listener. */
  off<Event extends keyof Events>(event: Event, listener: (payload: Events[Event]) => unknown): void;
  emit<Event extends keyof Events>(event: Event, payload: Events[Event]): void;
  /** Emits an `error` event, or logs the error if there is no listener. */
  report(error: unknown): void;
}

/** Creates the listeners of a client. */
export function createEmitter<Events extends { error: { error: Error } }>(): Emitter<Events> {
  /** Each registration is a separate array, because the same function may be registered twice. */
  const registrations = new Set<readonly [event: keyof Events, listener: (payload: never) => unknown]>();
  /** A copy, because a listener may add and remove others. */
  const of = (event: keyof Events) => [...registrations].filter(([each]) => each === event);

  const emit: Emitter<Events>["emit"] = (event, payload) => {
    for (const [, listener] of of(event)) {
      // An `error` listener must not be called with the error that it throws. `on` has typed the payload.
      guard(() => listener(payload as never), event === "error" ? log : report);
    }
  };

  const report = (error: unknown) => {
    if (of("error")[0]) emit("error", { error: asError(error) } as Events["error"]);
    else log(error);
  };

  return {
    on(event, listener) {
      const registration = [event, listener] as const;
      registrations.add(registration);
      return () => void registrations.delete(registration);
    },
    off(event, listener) {
      // Deleting `undefined` does nothing.
      registrations.delete(of(event).find(([, each]) => each === listener)!);
    },
    emit,
    report,
  };
}

/** Converts a thrown value, which may be anything, such as a Proxy whose traps throw. */
function asError(cause: unknown): Error {
  let error = new Error(textOf(cause), { cause });
  guard(() => {
    if (cause instanceof Error) error = cause;
  }, () => {});
  return error;
}

/** Logs an error. `console.error` reads properties, whose getters may throw. */
const log = (error: unknown): void => guard(() => console.error(error), () => console.error(textOf(error)));
