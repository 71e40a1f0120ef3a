/** The parts of a client or pool of `pg` that the engine uses. */
export interface PgClient {
  /** Runs a statement. The parameters are of type `never`, so that the overloads of the library are assignable. */
  query(text: string, values: never[]): unknown;
  /** Connects, or takes a connection of the pool. */
  connect(): Promise<unknown>;
}

/** The parts of the `sql` of `postgres` that the engine uses. */
export interface PostgresJsClient {
  /** Runs a statement. */
  unsafe(text: string, values?: never[]): PromiseLike<unknown>;
  /** Receives the notifications of a channel. */
  listen(channel: string, notify: (payload: string) => void, listening?: () => void): Promise<unknown>;
}

/** The parts of a PGlite that the engine uses. */
export interface PgliteClient {
  /** Resolves when the database has started. */
  readonly waitReady: Promise<void>;
  /** Runs a statement. */
  query(text: string, values?: never[]): Promise<unknown>;
  /** Runs several statements. */
  exec(text: string): Promise<unknown>;
  /** Receives the notifications of a channel. */
  listen(channel: string, notify: (payload: string) => void): Promise<unknown>;
}

/** A pool or client of `pg` 8 or later, the `sql` of `postgres` 3 or later, or a PGlite. */
export type PostgresClient = PgClient | PostgresJsClient | PgliteClient;

/** A row of an answer. */
type Row = Readonly<Record<string, unknown>>;

/** The connections of one session. They end instead of reconnecting. */
export interface PostgresConnection {
  /** Runs one statement. */
  query(text: string, values: readonly string[]): Promise<readonly Row[]>;
  /** Runs several statements in one transaction. */
  script(text: string): Promise<void>;
  /** Calls `notify` with each notification of the channel. Resolves when the database has begun to send them. */
  listen(channel: string, notify: (payload: string) => void): Promise<void>;
  close(): void;
}

/** A client of `pg`, as its constructor makes it. */
interface Pg {
  connect(): Promise<unknown>;
  end(): Promise<unknown>;
  query(text: string, values?: readonly string[]): Promise<{ readonly rows: readonly Row[] }>;
  on(event: "notification", listener: (message: { readonly payload?: string }) => void): unknown;
  on(event: "error" | "end", listener: (error?: unknown) => void): unknown;
  /** Every version has it, but not in its types. */
  readonly connection?: { readonly stream?: { destroy(): void } };
}

type PgConstructor = new (options: object) => Pg;

/** A pool of `pg`: the constructor of its clients, and their options. */
interface PgPool {
  readonly Client: PgConstructor;
  readonly options: object;
}

/** The `sql` of `postgres`. */
interface PostgresJs {
  unsafe(text: string, values?: readonly string[]): Promise<readonly Row[]>;
  listen(
    channel: string,
    notify: (payload: string) => void,
    listening: () => void,
  ): Promise<{ unlisten(): Promise<unknown> }>;
}

interface Pglite {
  query(text: string, values?: readonly string[]): Promise<{ readonly rows: readonly Row[] }>;
  transaction(work: (transaction: { exec(text: string): Promise<unknown> }) => Promise<unknown>): Promise<unknown>;
  listen(channel: string, notify: (payload: string) => void): Promise<() => Promise<void>>;
}

const isPool = (client: object): boolean => "Client" in client && "options" in client;
const isPostgresJs = (client: unknown): boolean => typeof client === "function" && "unsafe" in client && "listen" in client;
const isPglite = (client: object): boolean => "exec" in client && "listen" in client && "waitReady" in client;

/** @throws {TypeError} if the value is not a client of one of the libraries. */
export function checkClient(name: string, client: unknown): void {
  if (isPostgresJs(client)) return;
  if (typeof client === "object" && client !== null) {
    if (isPglite(client) || isPool(client) || ("connectionParameters" in client && "query" in client)) return;
  }
  throw new TypeError(
    `Cannot create the engine: ${name} must be a Pool or Client of "pg", the sql of "postgres", or a PGlite of "@electric-sql/pglite"`,
  );
}

/**
 * Opens connections with the settings of the clients. The engine does not use the connections of a pool or client of `pg`, because it
 * has to end those that hang.
 *
 * @param listen client that connects to the database without a pooler, for notifications; `null` for none.
 * @param ended called when a connection is lost.
 * @param abandoned ends the attempt to connect.
 */
export async function connectPostgres(
  client: PostgresClient,
  listen: PostgresClient | null,
  ended: (error: unknown) => void,
  abandoned: AbortSignal,
): Promise<PostgresConnection> {
  if (listen === null || isPglite(client) && listen === client) return await open(client, ended, abandoned);
  // At once, because PostgreSQL takes some ms to start the process of each connection.
  const [commands, listener] = await Promise.allSettled([open(client, ended, abandoned), open(listen, ended, abandoned)]);
  if (commands.status === "rejected" || listener.status === "rejected") {
    for (const each of [commands, listener]) if (each.status === "fulfilled") each.value.close();
    throw (commands.status === "rejected" ? commands : listener as PromiseRejectedResult).reason; // If not the first, the second was rejected.
  }
  return {
    ...commands.value,
    listen: listener.value.listen,
    close: () => {
      listener.value.close();
      commands.value.close();
    },
  };
}

/** Runs a statement in a transaction of the application. @throws {TypeError} if it is something else, such as a pool. */
export async function inTransaction(transaction: unknown, text: string, values: readonly (string | null)[]): Promise<void> {
  if (typeof transaction === "function" && "savepoint" in transaction && "unsafe" in transaction) {
    return void await (transaction as unknown as { unsafe(...query: unknown[]): Promise<unknown> }).unsafe(text, values); // Of `postgres`.
  }
  const isClient = typeof transaction === "object" && transaction !== null && "query" in transaction &&
    typeof transaction.query === "function";
  if (!isClient || isPool(transaction) || isPglite(transaction)) {
    throw new TypeError(
      'Cannot publish in the transaction: pass the client that ran BEGIN, not the pool; with "postgres" or PGlite, what the callback of the transaction receives',
    );
  }
  await (transaction as { query(...query: unknown[]): Promise<unknown> }).query(text, values); // Of `pg` or PGlite.
}

async function open(
  client: PostgresClient,
  ended: (error: unknown) => void,
  abandoned: AbortSignal,
): Promise<PostgresConnection> {
  // The casts hold, because the checks recognize each library by methods that only it has.
  if (isPostgresJs(client)) return openPostgresJs(client as unknown as PostgresJs, ended);
  if (isPglite(client)) return openPglite(client as unknown as Pglite);
  return isPool(client)
    ? await openPg((client as unknown as PgPool).Client, (client as unknown as PgPool).options, ended, abandoned)
    : await openPg(
      client.constructor as PgConstructor,
      (client as unknown as { connectionParameters: object }).connectionParameters,
      ended,
      abandoned,
    );
}

async function openPg(
  Client: PgConstructor,
  options: object,
  ended: (error: unknown) => void,
  abandoned: AbortSignal,
): Promise<PostgresConnection> {
  const client = new Client(options);
  let isClosed = false;
  // `error` without a listener ends the process.
  client.on("error", (error) => isClosed || ended(error));
  client.on("end", () => isClosed || ended(new Error("Cannot use PostgreSQL: the connection was closed")));
  const destroy = () => client.connection?.stream?.destroy();
  // A server that accepts the connection and never answers would keep the process alive.
  abandoned.addEventListener("abort", destroy, { once: true });
  await client.connect();
  abandoned.removeEventListener("abort", destroy);
  return {
    query: async (text, values) => (await client.query(text, values)).rows,
    script: async (text) => void await client.query(text),
    async listen(channel, notify) {
      client.on("notification", ({ payload }) => notify(payload ?? ""));
      // `idle_session_timeout` (PostgreSQL 14 or later) would end the connection, because notifications do not count as activity.
      const name = "'idle_session_timeout'";
      const stay = `select set_config(${name}, '0', false) where current_setting(${name}, true) is not null`;
      await client.query(`${stay}; listen ${channel}`);
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      client.end().catch(() => {}); // Not awaited: the server may be unreachable.
      destroy();
    },
  };
}

function openPostgresJs(sql: PostgresJs, ended: (error: unknown) => void): PostgresConnection {
  let isClosed = false;
  let listener: PostgresJsListener | undefined;
  let unlisten = (): Promise<unknown> => Promise.resolve();
  return {
    query: (text, values) => sql.unsafe(text, values),
    script: async (text) => void await sql.unsafe(text),
    async listen(channel, notify) {
      listener = new PostgresJsListener(notify, ended);
      const listened = await sql.listen(channel, listener.receive, listener.listening);
      unlisten = () => listened.unlisten();
      if (isClosed) await unlisten();
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      listener?.close();
      unlisten().catch(() => {}); // The server may be unreachable.
    },
  };
}

/**
 * The callbacks of `sql.listen`. The library keeps them for good once it has lost its connection and listens again, so they must not refer
 * to a session that has ended. They are no closures of `openPostgresJs`, because on Bun a closure keeps all variables around it.
 */
class PostgresJsListener {
  #notify: ((payload: string) => void) | undefined;
  #ended: ((error: unknown) => void) | undefined;
  #isListening = false;

  constructor(notify: (payload: string) => void, ended: (error: unknown) => void) {
    this.#notify = notify;
    this.#ended = ended;
  }

  readonly receive = (payload: string): void => this.#notify?.(payload);

  /** Notifications between its calls are lost. */
  readonly listening = (): void => {
    if (this.#isListening) this.#ended?.(new Error("Cannot receive notifications: the connection that listens was lost"));
    this.#isListening = true;
  };

  close(): void {
    this.#notify = this.#ended = undefined;
  }
}

/** Time in ms after which the next query of PGlite waits for a timer. */
const PGLITE_SLICE = 20;

function openPglite(db: Pglite): PostgresConnection {
  let isClosed = false;
  let unlisten = (): Promise<unknown> => Promise.resolve();
  let turned = performance.now();
  return {
    async query(text, values) {
      // PGlite answers in microtasks: consecutive queries would delay all timers until leases expire.
      if (performance.now() - turned > PGLITE_SLICE) {
        await new Promise<void>((resolve) => void setTimeout(resolve));
        turned = performance.now();
      }
      return (await db.query(text, values)).rows;
    },
    script: async (text) => void await db.transaction((transaction) => transaction.exec(text)),
    async listen(channel, notify) {
      unlisten = await db.listen(channel, (payload) => isClosed || notify(payload));
      if (isClosed) await unlisten();
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      unlisten().catch(() => {}); // The database may have been closed.
    },
  };
}

/** Whether the error is about the connection or its server, and not about a statement. */
export function isLost(error: unknown): boolean {
  const code = codeOf(error);
  if (code === undefined) return true;
  // Connection errors, shutdowns, a standby, and missing tables or functions, which the next session creates.
  return /^08|^57P|^53|^25006|^3D|^3F|^42P01|^42883/.test(code);
}

/** Whether the statement was rolled back because of another transaction, and may be run again. */
export function isConflict(error: unknown): boolean {
  return ["40001", "40P01"].includes(codeOf(error) ?? "");
}

/** The SQLSTATE of an error of the database. */
export function codeOf(error: unknown): string | undefined {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}
