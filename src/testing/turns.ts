// Captured when the module loads, before fake timers of a test runner or of this kit replace them.
const { setImmediate: immediate, setTimeout: timeout } = globalThis as {
  setImmediate?: (callback: () => void) => unknown; // Absent in workerd.
  setTimeout(callback: () => void, delay: number): unknown;
};

/** Calls the function in a later turn of the event loop, when every promise that could settle has settled. */
const inNextTurn = (run: () => void): void => void (immediate ? immediate(run) : timeout(run, 0));

/** Resolves in a later turn. */
export const nextTurn = (): Promise<void> => new Promise(inNextTurn);

/** Number of turns without activity after which nothing is under way. More than one without `setImmediate`, whose calls are counted. */
const QUIET_TURNS = immediate ? 1 : 3;

/** Instances that watch. They share one wrapper of each method, because kits may end in any order. */
const watching = new Set<Turns>();

/** Cryptographic operations and immediates under way. */
const operations = new Set<unknown>();

const undoes: (() => void)[] = [];

/**
 * Runs functions in later turns of the event loop, in the order in which they were posted. Nothing in memory takes time, so everything under
 * way is done after a few turns. Calls of `crypto.subtle`, which run outside of the event loop, are counted.
 */
export class Turns {
  #posted: (() => void)[] = [];
  /** Number of events so far. */
  #activity = 0;
  readonly #report: (error: unknown) => void;

  /** @param report called with what a posted function throws. */
  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  /** Calls the function in the next turn, after those posted before. */
  post(run: () => void): void {
    this.#activity++;
    if (this.#posted.push(run) === 1) inNextTurn(() => this.#run());
  }

  /** Resolves when nothing is under way. */
  settle(): Promise<void> {
    return new Promise((resolve) => {
      let [quiet, seen] = [0, this.#activity];
      const look = () => {
        quiet = this.#activity === seen && operations.size === 0 ? quiet + 1 : 0;
        seen = this.#activity;
        if (quiet === QUIET_TURNS) resolve();
        else inNextTurn(look);
      };
      inNextTurn(look);
    });
  }

  /** Counts calls of `crypto.subtle` and `setImmediate` until {@link unwatch}. */
  watch(): void {
    if (watching.size === 0) wrapAll();
    watching.add(this);
  }

  unwatch(): void {
    if (watching.delete(this) && watching.size === 0) { for (const undo of undoes.splice(0)) undo(); }
  }

  /** Counts an event. */
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
      return (original(...args) as Promise<unknown>).finally(() => done(operation)); // All of its methods return a promise.
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
    // If something else has wrapped it since, that still calls this wrapper.
    if (methods[name] !== wrapped) return;
    if (isOwn) methods[name] = original;
    else delete methods[name];
  });
}
