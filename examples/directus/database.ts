import type { DatabaseSync } from "node:sqlite";

/**
 * Opens a database file, `:memory:` for none. Deno and Bun have `node:sqlite` too.
 *
 * @throws {Error} where the runtime has no SQLite: Node before 22.13.
 */
export async function openDatabase(path: string): Promise<DatabaseSync> {
  let sqlite: typeof import("node:sqlite");
  try {
    sqlite = await import("node:sqlite");
  } catch (cause) {
    throw new Error("Cannot open the database: this runtime has no node:sqlite, use Node 22.13, Deno 2.2, Bun 1.4 or newer", {
      cause,
    });
  }
  const database = new sqlite.DatabaseSync(path);
  // Readers go on while something is written, and a write that another process is in the way of waits (ms).
  database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 2000; PRAGMA foreign_keys = ON");
  return database;
}
