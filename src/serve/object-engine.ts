import type { Engine } from "../engines/engine.ts";
import type { Sql } from "../engines/sqlite-histories.ts";

/** Makes the engine of one controller of an object. `sql` is absent if the class has no SQLite storage. */
export type MakeEngine = (sql: Sql | undefined, controller: string) => Engine;

const MAKE_ENGINE: unique symbol = Symbol("noroshi.object-engine");

/** Returns the app with the function that makes its controllers' engines. */
export function withEngine<App extends object>(app: App, make: MakeEngine): App {
  return { ...app, [MAKE_ENGINE]: make };
}

export function engineOf(app: object): MakeEngine | undefined {
  return (app as { [MAKE_ENGINE]?: MakeEngine })[MAKE_ENGINE]; // Written by `withEngine`.
}

/** Prefix of the names of a controller's tables. */
export const prefixOf = (controller: string): string => `noroshi_${controller}`;
