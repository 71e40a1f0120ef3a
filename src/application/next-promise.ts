/** A promise that a middleware derived from a {@link Downstream}, and the error it rejected with. */
export interface LostFailure {
  promise: Downstream<unknown>;
  error: unknown;
}

/**
 * The promise of `next()`, and those derived from it by `then`, `catch` and `finally`. It records whether it is observed, and
 * never causes an unhandled rejection, which ends a Node or Deno process.
 */
export class Downstream<Value = void> extends Promise<Value> {
  static #made: PromiseConstructor = Downstream;

  /** The class of the promise that `then` returns: this one for a middleware; for `#take` a plain one, which is cheaper. */
  static override get [Symbol.species](): PromiseConstructor {
    return Downstream.#made;
  }

  observed = false;
  #lose: ((failure: LostFailure) => void) | undefined;

  /** @param lose called when a promise derived from this one rejects unobserved. */
  static of(run: Promise<void>, lose: (failure: LostFailure) => void): Downstream {
    const rest = new Downstream<void>((resolve, reject) => run.then(resolve, reject));
    rest.#lose = lose;
    // `#run` awaits it when the middleware is done; until then it must not count as unhandled.
    rest.#take(() => {});
    return rest;
  }

  override then<Fulfilled = Value, Rejected = never>(
    onFulfilled?: ((value: Value) => Fulfilled | PromiseLike<Fulfilled>) | null,
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected> {
    this.observed = true;
    const promise = super.then(onFulfilled, onRejected) as Downstream<Fulfilled | Rejected>; // Because of Symbol.species.
    promise.#lose = this.#lose;
    promise.#take((error) => promise.observed || promise.#lose?.({ promise, error }));
    return promise;
  }

  #take(onRejected: (error: unknown) => void): void {
    Downstream.#made = Promise;
    super.then(undefined, onRejected);
    Downstream.#made = Downstream;
  }
}
