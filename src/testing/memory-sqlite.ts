import type { Sql } from "../engines/sqlite-histories.ts";

/** The part of both SQLite modules that the test kit uses. */
interface Database {
  prepare(query: string): { all(...bindings: unknown[]): unknown[] };
  close(): void;
}

/** Modules with SQLite, of Node 22.13 or later and Deno, and of Bun. */
const MODULES: readonly (readonly [module: string, name: string])[] = [
  ["node:sqlite", "DatabaseSync"],
  ["bun:sqlite", "Database"],
];

/**
 * The storage of Durable Objects: a database in memory for each, with the SQLite of the runtime. It survives hibernation of its object.
 */
export class MemorySqlite {
  readonly #Database: new (path: string) => Database;
  readonly #open = new Map<number, Database>();

  /** @throws {TypeError} on a runtime without SQLite. */
  constructor() {
    const { process } = globalThis as { process?: { getBuiltinModule?(name: string): Record<string, unknown> | undefined } };
    const found = MODULES.map(([module, name]) => load(() => process?.getBuiltinModule?.(module))?.[name]).find(Boolean);
    if (!found) throw new TypeError("Cannot hibernate: this runtime has no SQLite, use Bun, Deno, or Node 22.13 or later");
    this.#Database = found as new (path: string) => Database; // Both modules have this constructor.
  }

  open(node: number): Sql {
    let database = this.#open.get(node);
    if (!database) this.#open.set(node, database = new this.#Database(":memory:"));
    const opened = database;
    const statements = new Map<string, ReturnType<Database["prepare"]>>();
    return {
      exec(query, ...bindings) {
        let statement = statements.get(query);
        if (!statement) statements.set(query, statement = opened.prepare(query));
        return statement.all(...bindings);
      },
    };
  }

  close(): void {
    for (const database of this.#open.values()) database.close();
    this.#open.clear();
  }
}

function load<Module>(find: () => Module): Module | undefined {
  try {
    return find();
  } catch {
    return undefined; // There is no such module.
  }
}
