import { calls } from "./calls.ts";
import { functions } from "./functions.ts";
import { tables } from "./tables.ts";

/** A migration of the schema, as SQL. */
export interface PostgresMigration {
  /** Counts from 1. */
  readonly version: number;
  /** A name for a file, such as `noroshi_0001.sql`. */
  readonly name: string;
  /** The statements, for one transaction. They may run again. */
  readonly sql: string;
}

/** The schema version that this package needs. A database with a later version works too. */
export const VERSION = 1;

/** The quoted schema and a dot. @throws {TypeError} if it is not a lower-case name. */
export function prefixOf(schema: string): string {
  if (typeof schema === "string" && /^[a-z_][a-z0-9_]{0,62}$/.test(schema)) return `"${schema}".`;
  throw new TypeError('Cannot create the engine: schema must be a name of lower-case letters, digits and "_", such as "public"');
}

/**
 * Returns the SQL that creates the tables and functions of the engine. The engine applies it when it connects, unless `migrate` is
 * `false`: then run it with a tool of your own, each migration in one transaction, before the nodes start.
 *
 * @param schema the engine's option of this name. @default {"public"}
 * @throws {TypeError} if it is not a lower-case name.
 */
export function postgresMigrations(schema = "public"): PostgresMigration[] {
  const s = prefixOf(schema);
  return [{ version: 1, name: "noroshi_0001.sql", sql: step(schema, 1, `${tables(s)}${functions(s)}${calls(s)}`) }];
}

/** The SQL of a migration. If two nodes start at once, a lock makes the second wait until the transaction of the first ends. */
function step(schema: string, version: number, statements: string): string {
  const s = prefixOf(schema);
  return `-- Noroshi, version ${version} of its tables and functions. Run it in one transaction.
select pg_advisory_xact_lock(hashtextextended('noroshi ${schema}', 0));

do $do$ begin
  if to_regnamespace('"${schema}"') is null then create schema "${schema}"; end if;
end $do$;

create table if not exists ${s}noroshi_migrations (
  version integer primary key,
  at timestamptz not null default now()
);
${statements}
insert into ${s}noroshi_state values (1, gen_random_uuid()::text) on conflict do nothing;
insert into ${s}noroshi_migrations (version) values (${version}) on conflict do nothing;
`;
}
