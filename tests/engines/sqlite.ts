import { createRequire } from "node:module";
import process from "node:process";
import type { Sql } from "../../src/engines/sqlite-histories.ts";

/** What the adapter uses of the two modules, which are alike. */
interface Database {
  prepare(query: string): { all(...bindings: unknown[]): unknown[] };
  close(): void;
}

const isBun = "bun" in process.versions;
const module = isBun ? "bun:sqlite" : "node:sqlite";

/** Why there is no SQLite here. */
export const noSqlite: string | false = hasModule() ? false : "this runtime has no SQLite of its own";

/** A database in memory, or in a file, that has the interface of a Durable Object's. */
export function openSqlite(path = ":memory:"): Sql & { close(): void } {
  const loaded = createRequire(import.meta.url)(module) as Record<string, new (path: string) => Database>; // Both are so.
  const database = new loaded[isBun ? "Database" : "DatabaseSync"]!(path);
  const statements = new Map<string, ReturnType<Database["prepare"]>>();
  return {
    exec(query, ...bindings) {
      let statement = statements.get(query);
      if (!statement) statements.set(query, statement = database.prepare(query));
      return statement.all(...bindings);
    },
    close: () => database.close(),
  };
}

function hasModule(): boolean {
  try {
    createRequire(import.meta.url)(module);
    return true;
  } catch {
    return false; // Node before 22.5.
  }
}
