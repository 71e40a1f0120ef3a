/** A promise that a middleware derived from a {@link NextPromise}, and the error it rejected with. */
export interface UnhandledFailure {
  promise: NextPromise<unknown>;
  error: unknown;
}

/**
 * The promise of `next()`, and those derived from it by `then`, `catch` and `finally`. It records whether it is observed, and
 * never causes an unhandled rejection, which ends a Node or Deno process.
 */
export class NextPromise<Value = void> extends Promise<Value> {
  static #species: PromiseConstructor = NextPromise;

  /** The class of the promise that `then` returns: this one for a middleware; for `#catch` a plain one, which is cheaper. */
  static override get [Symbol.species](): PromiseConstructor {
    return NextPromise.#species;
  }

  observed = false;
  #onUnhandled: ((failure: UnhandledFailure) => void) | undefined;

  /** @param onUnhandled called when a promise derived from this one rejects unobserved. */
  static of(run: Promise<void>, onUnhandled: (failure: UnhandledFailure) => void): NextPromise {
    const rest = new NextPromise<void>((resolve, reject) => run.then(resolve, reject));
    rest.#onUnhandled = onUnhandled;
    // The chain awaits it when the middleware is done; until then it must not count as unhandled.
    rest.#catch(() => {});
    return rest;
  }

  override then<Fulfilled = Value, Rejected = never>(
    onFulfilled?: ((value: Value) => Fulfilled | PromiseLike<Fulfilled>) | null,
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected> {
    this.observed = true;
    const promise = super.then(onFulfilled, onRejected) as NextPromise<Fulfilled | Rejected>; // Because of Symbol.species.
    promise.#onUnhandled = this.#onUnhandled;
    promise.#catch((error) => promise.observed || promise.#onUnhandled?.({ promise, error }));
    return promise;
  }

  #catch(onRejected: (error: unknown) => void): void {
    NextPromise.#species = Promise;
    super.then(undefined, onRejected);
    NextPromise.#species = NextPromise;
  }
}
