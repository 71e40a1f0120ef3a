/** Shared by all copies of the package: the first one registers it on `globalThis`. */
interface Termination {
  /** Closes the server before the process ends. Returns a function that removes it. */
  add(server: TerminableServer): () => void;
}

/** A running server. */
export interface TerminableServer {
  /** Whether SIGINT and SIGTERM end the process while this server runs. */
  readonly handlesSignals: boolean;
  /**
   * Drains the server once; further calls return the same promise. In older versions of the package it resolves with `undefined`.
   */
  close(): Promise<{ readonly isClean: boolean } | void>;
}

/** Exit status of a process that a signal ends: 128 plus the signal's number. */
const STATUS = { SIGINT: 130, SIGTERM: 143 } as const;

class SignalTermination implements Termination {
  readonly #servers = new Set<TerminableServer>();
  readonly #listeners = Object.entries(STATUS).map(([signal, status]) => ({ signal, listener: () => this.#terminate(status) }));
  #isListening = false;
  #isTerminating = false;

  add(server: TerminableServer): () => void {
    this.#servers.add(server);
    this.#listen();
    if (this.#isTerminating) void server.close();
    return () => {
      this.#servers.delete(server);
      this.#listen();
    };
  }

  /** Listens while a server handles signals, and from the first signal until the process ends. */
  #listen(): void {
    const listens = this.#isTerminating || [...this.#servers].some(({ handlesSignals }) => handlesSignals);
    if (listens === this.#isListening) return;
    this.#isListening = listens;
    for (const { signal, listener } of this.#listeners) {
      if (listens) process.on(signal, listener);
      else process.off(signal, listener);
    }
  }

  #terminate(status: number): void {
    if (this.#isTerminating) process.exit(status);
    this.#isTerminating = true;
    void this.#closeAll().then((isClean) => process.exit(isClean ? 0 : 1));
  }

  async #closeAll(): Promise<boolean> {
    let isClean = true;
    while (this.#servers.size > 0) {
      const closing = [...this.#servers].map((server) => server.close());
      this.#servers.clear();
      const results = await Promise.allSettled(closing);
      isClean &&= results.every((result) => result.status === "fulfilled" && result.value?.isClean !== false);
    }
    return isClean;
  }
}

const { process } = globalThis as unknown as { process: NodeJS.Process }; // Defined on Bun, Deno and Node.

const KEY = Symbol.for("noroshi.termination");

/**
 * Drains the server on SIGINT and SIGTERM, and exits once all servers of the process have ended, including those of other copies
 * of the package: with 0 if every drain was clean, else with 1. A second signal exits at once. Returns a function that removes
 * the server.
 */
export function drainOnTermination(server: TerminableServer): () => void {
  const registry = globalThis as { [KEY]?: Termination };
  return (registry[KEY] ??= new SignalTermination()).add(server);
}
