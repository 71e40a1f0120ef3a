import { isConflict, isLost, type PostgresConnection } from "./client.ts";

/** Maximum number of calls in one statement, and of characters of their arguments. */
const [MAX_CALLS, MAX_LENGTH] = [200, 4_000_000];

/** Attempts for a statement that fails because of other transactions. */
const MAX_RUNS = 5;

interface Waiting {
  readonly call: string;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/** Makes calls in order, one statement at a time. Calls that arrive during a statement share the next one, and its transaction. */
export class CallQueue {
  readonly #connection: Pick<PostgresConnection, "query">;
  readonly #statement: string;
  readonly #namespace: string;
  readonly #failed: (error: unknown) => void;
  #waiting: Waiting[] = [];
  #isRunning = false;
  #stopped: unknown;

  /** @param statement whose parameters are the namespace and the calls. @param failed called with each error that calls reject with. */
  constructor(
    connection: Pick<PostgresConnection, "query">,
    statement: string,
    namespace: string,
    failed: (error: unknown) => void,
  ) {
    this.#connection = connection;
    this.#statement = statement;
    this.#namespace = namespace;
    this.#failed = failed;
  }

  call(...call: unknown[]): Promise<unknown> {
    if (this.#stopped !== undefined) return Promise.reject(this.#stopped);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ call: JSON.stringify(call), resolve, reject });
      if (this.#isRunning) return;
      this.#isRunning = true;
      // Calls of one turn share a statement.
      queueMicrotask(() => void this.#run());
    });
  }

  /** Rejects waiting and later calls. In the next session, they would be made after newer ones. */
  stop(reason: unknown): void {
    this.#stopped ??= reason;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#stopped);
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) await this.#send(this.#take());
    this.#isRunning = false;
  }

  async #send(batch: readonly Waiting[], runs = 1): Promise<void> {
    try {
      // `stop` may be called while the second half of a split batch waits for the first.
      if (this.#stopped !== undefined) throw this.#stopped;
      const text = `[${batch.map(({ call }) => call).join()}]`;
      const [row] = await this.#connection.query(this.#statement, [this.#namespace, text]);
      const answers: unknown = JSON.parse(`${row?.["answers"]}`);
      if (!Array.isArray(answers) || answers.length !== batch.length) {
        throw new TypeError("Cannot read the answer of PostgreSQL: it is not a list with one answer for each call");
      }
      for (const [number, { resolve }] of batch.entries()) resolve(answers[number]);
    } catch (error) {
      if (runs < MAX_RUNS && isConflict(error)) return await this.#send(batch, runs + 1);
      if (batch.length > 1 && !isLost(error)) {
        // One call has failed, which has rolled back all of them.
        const half = batch.length >> 1;
        await this.#send(batch.slice(0, half));
        return await this.#send(batch.slice(half));
      }
      this.#failed(error);
      for (const { reject } of batch) reject(error);
    }
  }

  #take(): Waiting[] {
    let length = 0;
    const end = this.#waiting.findIndex(({ call }, number) =>
      number >= MAX_CALLS || (length += call.length) > MAX_LENGTH && number > 0
    );
    return this.#waiting.splice(0, end < 0 ? this.#waiting.length : end);
  }
}
