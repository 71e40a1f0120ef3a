/**
 * Explains why the import of an optional package failed, and names the command that installs it. Returns any other error unchanged.
 *
 * @param action what cannot be done: "serve"
 * @param packages all packages that the action needs
 */
export function missingPackage(action: string, packages: readonly string[], error: unknown): unknown {
  // `'ws'` on Node, `"ws"` or `"npm:ws@^8.23.0"` on Deno.
  const name = packages.find((name) => new RegExp(`["'](?:npm:)?${name}["'@]`).test(String(error)));
  if (name === undefined) return error;
  // An import of a name that an older version does not export.
  const state = error instanceof SyntaxError ? "has another version than Noroshi needs" : "is not installed";
  const command = "Deno" in globalThis
    ? `deno add ${packages.map((name) => `npm:${name}`).join(" ")}`
    : `npm install ${packages.join(" ")}`;
  return new Error(`Cannot ${action}: the package ${name} ${state}, run ${command}`, { cause: error });
}
