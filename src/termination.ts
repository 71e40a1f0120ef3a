/** What the first copy of the package registers on `globalThis`, and every copy of the process uses. */
interface Termination {
  /** Has the server closed before the process ends; returns the way to take that back. */
  add(server: TerminableServer): () => void;
}

/** A server that listens. */
export interface TerminableServer {
  /** Whether SIGINT and SIGTERM end the process while it runs. */
  readonly handlesSignals: boolean;
  /** Resolves when it is closed; called more than once it closes once. */
  close(): Promise<void>;
}

/** The exit status of a process that a signal ended: 128 and the signal's number. */
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

  /** Listens while a server asks for it, and until the end of the process once it is ending. */
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
    void this.#closeAll().then(() => process.exit(0));
  }

  async #closeAll(): Promise<void> {
    while (this.#servers.size > 0) {
      const closing = [...this.#servers].map((server) => server.close());
      this.#servers.clear();
      await Promise.allSettled(closing);
    }
  }
}

const { process } = globalThis as unknown as { process: NodeJS.Process }; // Bun, Deno and Node all have it.

const KEY = Symbol.for("noroshi.termination");

/**
 * Closes the server on SIGINT and SIGTERM, and exits with 0 once every server of the process has closed, those of another copy of the
 * package included. A second signal ends the process at once. Returns the way to take that back.
 */
export function closeOnTermination(server: TerminableServer): () => void {
  const registry = globalThis as { [KEY]?: Termination };
  return (registry[KEY] ??= new SignalTermination()).add(server);
}
