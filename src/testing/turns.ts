// Captured when the module loads, so that fake timers of a test runner, or our own, do not replace it.
const { setImmediate: immediate, setTimeout: timeout } = globalThis as {
  setImmediate?: (callback: () => void) => unknown; // Absent in workerd.
  setTimeout(callback: () => void, delay: number): unknown;
};

/** Resolves in a later turn of the event loop: by then every promise that could settle has settled. */
export const nextTurn = (): Promise<void> =>
  new Promise((resolve) => void (immediate ? immediate(resolve) : timeout(resolve, 0)));

/** Turns without activity after which nothing is under way. In one all promises settle; where immediates cannot be counted, they take more. */
const QUIET_TURNS = immediate ? 1 : 3;

/** Those that watch. They share one wrapper of each method: kits that overlap end in any order, and each could unwrap only its own. */
const watching = new Set<Turns>();

/** Cryptographic operations and immediates under way. */
const operations = new Set<unknown>();

const undoes: (() => void)[] = [];

/**
 * What happens in later turns of the event loop, in the order it was posted. In memory nothing takes time, so that everything under way
 * is over after a few turns. `crypto.subtle` runs outside of the event loop, and is counted.
 */
export class Turns {
  #posted: (() => void)[] = [];
  /** Grows with everything that happens. */
  #activity = 0;
  readonly #report: (error: unknown) => void;

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
      if (this.#activity !== seen || operations.size > 0) quiet = -1;
      seen = this.#activity;
    }
  }

  /** Counts what others do in later turns, until {@link unwatch}: the calls of `crypto.subtle` and `setImmediate` are passed on. */
  watch(): void {
    if (watching.size === 0) wrapAll();
    watching.add(this);
  }

  unwatch(): void {
    if (watching.delete(this) && watching.size === 0) { for (const undo of undoes.splice(0)) undo(); }
  }

  /** Counts something that others did. */
  count(): void {
    this.#activity++;
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

function done(operation: unknown): void {
  if (operations.delete(operation)) { for (const turns of watching) turns.count(); }
}

function wrapAll(): void {
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(crypto.subtle))) {
    if (name === "constructor") continue;
    wrap(crypto.subtle, name, (original) => (...args: unknown[]) => {
      const operation = {};
      operations.add(operation);
      return (original(...args) as Promise<unknown>).finally(() => done(operation)); // As all of its methods return.
    });
  }
  if (!immediate) return;
  wrap(globalThis, "setImmediate", (original) => (callback: (...args: unknown[]) => void, ...args: unknown[]) => {
    const handle = original(() => {
      done(handle);
      callback(...args);
    });
    operations.add(handle);
    return handle;
  });
  wrap(globalThis, "clearImmediate", (original) => (handle: unknown) => {
    done(handle);
    return original(handle);
  });
}

function wrap(
  owner: object,
  name: string,
  wrapper: (original: (...args: unknown[]) => unknown) => (...args: never[]) => unknown,
): void {
  const methods = owner as Record<string, unknown>; // By name.
  const original = methods[name];
  if (typeof original !== "function") return;
  const isOwn = Object.hasOwn(owner, name);
  const wrapped = wrapper((...args) => original.apply(owner, args));
  Object.defineProperties(wrapped, Object.getOwnPropertyDescriptors(original)); // `util.promisify` reads one of them.
  methods[name] = wrapped;
  undoes.push(() => {
    // Something else may have wrapped it since, and goes on calling this one.
    if (methods[name] !== wrapped) return;
    if (isOwn) methods[name] = original;
    else delete methods[name];
  });
}
