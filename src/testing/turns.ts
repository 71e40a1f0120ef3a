// Captured when the module loads, so that fake timers of a test runner, or our own, do not replace it.
const { setImmediate: immediate, setTimeout: timeout } = globalThis as {
  setImmediate?: (callback: () => void) => unknown; // Absent in workerd.
  setTimeout(callback: () => void, delay: number): unknown;
};

/** Resolves in a later turn of the event loop: by then every promise that could settle has settled. */
export const nextTurn = (): Promise<void> =>
  new Promise((resolve) => void (immediate ? immediate(resolve) : timeout(resolve, 0)));

/** Turns without any activity after which nothing is under way: an outbox writes at the end of a turn, and its reader answers in the next. */
const QUIET_TURNS = 3;

/** The methods of `crypto.subtle` whose promises are counted. */
const SUBTLE = ["sign", "verify", "digest", "importKey", "deriveBits", "deriveKey", "encrypt", "decrypt"] as const;

/**
 * What happens in later turns of the event loop, in the order it was posted. In memory nothing takes time, so that everything under way
 * is over after a few turns; only cryptography runs outside of the event loop, and is counted.
 */
export class Turns {
  #posted: (() => void)[] = [];
  /** Grows with everything that happens. */
  #activity = 0;
  /** Cryptographic operations under way. */
  #operations = 0;
  readonly #report: (error: unknown) => void;
  #unwatch = () => {};

  /** @param report called with what a posted function throws. */
  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  /** Calls the function in the next turn, after those posted before. */
  post(run: () => void): void {
    this.#activity++;
    if (this.#posted.push(run) === 1) void nextTurn().then(() => this.#run());
  }

  /** Resolves when nothing is under way any more. */
  async settle(): Promise<void> {
    for (let quiet = 0, seen = this.#activity; quiet < QUIET_TURNS; quiet++) {
      await nextTurn();
      if (this.#activity !== seen || this.#operations > 0) quiet = -1;
      seen = this.#activity;
    }
  }

  /** Counts the operations of `crypto.subtle` until {@link unwatch}: a token or a signature is verified outside of the event loop. */
  watch(): void {
    const { subtle } = globalThis.crypto;
    const own = subtle as unknown as Record<string, unknown>; // Methods by name.
    const replaced = SUBTLE.filter((name) => typeof own[name] === "function").map((name) => {
      const original = own[name] as (...args: unknown[]) => Promise<unknown>; // As filtered.
      const counting = (...args: unknown[]): Promise<unknown> => {
        this.#operations++;
        return original.apply(subtle, args).finally(() => {
          this.#operations--;
          this.#activity++;
        });
      };
      own[name] = counting;
      return { name, counting, original };
    });
    this.#unwatch = () => {
      for (const { name, counting, original } of replaced) {
        // Another kit may have wrapped it since: it then goes on calling ours.
        if (own[name] === counting) own[name] = original;
      }
    };
  }

  unwatch(): void {
    this.#unwatch();
  }

  #run(): void {
    const posted = this.#posted;
    this.#posted = [];
    for (const run of posted) {
      this.#activity++;
      try {
        run();
      } catch (error) {
        this.#report(error);
      }
    }
  }
}
