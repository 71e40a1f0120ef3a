/**
 * The engine over PostgreSQL 13 or later, for applications with a database and no broker. Histories and members are in tables. Nodes notify
 * each other with `NOTIFY`, which names the rows to read.
 *
 * @example
 * ```ts
 * import { createWebSocketController } from "noroshi";
 * import { postgresEngine } from "noroshi/postgres";
 * import { Pool } from "pg";
 *
 * createWebSocketController({ engine: postgresEngine({ client: new Pool({ connectionString: "postgres://localhost/shop" }) }) });
 * ```
 *
 * @module
 */
import type { HistoryOptions, PublishOnce } from "../engine.ts";
import { BrokerEngine } from "../broker/broker-engine.ts";
import type { BrokerEngineOptions } from "../broker/options.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "../broker/broker.ts";
import { KnownPositions } from "../broker/known-positions.ts";
import { checkClient, connectPostgres, inTransaction, type PostgresClient, type PostgresConnection } from "./client.ts";
import { postgresMigrations, prefixOf, VERSION } from "./migrations.ts";
import { type PostgresMemory, PostgresSession, subjectOf } from "./session.ts";

export type { BrokerEngine } from "../broker/broker-engine.ts";
export type { BrokerEngineOptions } from "../broker/options.ts";
export type { PgClient, PgliteClient, PostgresClient, PostgresJsClient } from "./client.ts";
export { type PostgresMigration, postgresMigrations } from "./migrations.ts";

/** Options of {@link postgresEngine}. */
export interface PostgresEngineOptions extends BrokerEngineOptions {
  /**
   * A `Pool` or `Client` of `pg` 8 or later, the `sql` of `postgres` 3 or later, or a PGlite. With `pg`, the engine opens two connections
   * of its own with the same settings, or one for a publisher without a secret. It uses the others as they are, and does not close them.
   */
  client: PostgresClient;
  /**
   * A client that connects to the database directly, for `LISTEN`. Needed if `client` uses a pooler in transaction mode, such as PgBouncer.
   *
   * @default {client}
   */
  listen?: PostgresClient;
  /** Schema of the tables and functions, whose names begin with `noroshi_`. It is created if it is missing. @default {"public"} */
  schema?: string;
  /** Whether the engine creates and migrates the tables. If not, run the SQL of `postgresMigrations` first. @default {true} */
  migrate?: boolean;
}

/**
 * Creates an engine that connects nodes over PostgreSQL.
 *
 * @throws {TypeError} for an invalid option.
 */
export function postgresEngine(options: PostgresEngineOptions): BrokerEngine {
  const { client, listen = client, schema = "public", migrate = true, ...rest } = options;
  checkClient("client", client);
  checkClient("listen", listen);
  prefixOf(schema);
  return new BrokerEngine(new PostgresBroker({ client, listen, schema, migrate }), rest);
}

class PostgresBroker implements Broker {
  readonly name = "PostgreSQL";
  readonly #options: Required<Pick<PostgresEngineOptions, "client" | "listen" | "schema" | "migrate">>;
  readonly #memory: PostgresMemory = { positions: new KnownPositions(), run: "", lsn: null };

  constructor(options: Required<Pick<PostgresEngineOptions, "client" | "listen" | "schema" | "migrate">>) {
    this.#options = options;
  }

  async connect(listener: BrokerListener, options: SessionOptions, abandoned: AbortSignal): Promise<BrokerSession> {
    const { client, listen, schema } = this.#options;
    const [connection, subject] = await Promise.all([
      connectPostgres(client, options.onlySends ? null : listen, listener.ended, abandoned),
      subjectOf(schema, options.namespace),
    ]);
    // Ends statements under way, whose answer may never come.
    abandoned.addEventListener("abort", () => connection.close(), { once: true });
    try {
      abandoned.throwIfAborted();
      const session = new PostgresSession(connection, schema, listener, options, this.#memory);
      await session.start(subject, (version) => this.#migrate(connection, version));
      return session;
    } catch (error) {
      // Reported before the connections are closed, which would report a less useful error.
      listener.ended(error);
      connection.close();
      throw error;
    }
  }

  /** Inserts a row into the outbox, which a trigger publishes when the transaction commits. */
  readonly publishIn = async (
    transaction: unknown,
    namespace: string,
    channel: string,
    envelope: string,
    history: HistoryOptions | null,
    once?: PublishOnce,
  ): Promise<void> => {
    const columns = "namespace, channel, body, size, ttl, once_id, once_window";
    const text = `insert into ${prefixOf(this.#options.schema)}noroshi_outbox (${columns})
      values ($1::text, $2::text, $3::text, $4::text::bigint, $5::text::bigint, $6::text, $7::text::bigint)`;
    const numbers = [history?.size, history?.ttl].map((number) => number === undefined ? null : `${number}`);
    const values = [namespace, channel, envelope, ...numbers, once?.id ?? null, `${once?.window ?? 0}`];
    await inTransaction(transaction, text, values);
  };

  async #migrate(connection: PostgresConnection, version: number): Promise<boolean> {
    const { schema, migrate } = this.#options;
    if (version >= VERSION) return false;
    if (!migrate) {
      throw new Error(
        `Cannot use the database: its tables have version ${version} and not ${VERSION}, run the SQL of postgresMigrations("${schema}")`,
      );
    }
    for (const each of postgresMigrations(schema)) if (each.version > version) await connection.script(each.sql);
    return true;
  }
}
