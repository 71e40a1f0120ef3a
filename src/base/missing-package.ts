/** Returns the command that installs packages, if it is known from the runtime or the package manager that runs the script. */
function installer(): string | undefined {
  const { Bun, Deno, process } = globalThis as {
    Bun?: unknown;
    Deno?: unknown;
    process?: { env?: { npm_config_user_agent?: string } };
  }; // Of the runtime.
  if (Deno) return "deno add";
  if (Bun) return "bun add";
  const agent = process?.env?.npm_config_user_agent?.match(/^(npm|pnpm|yarn)\//)?.[1];
  return agent && `${agent} ${agent === "npm" ? "install" : "add"}`;
}

/**
 * Explains why the import of an optional package failed, and names the packages to install. Returns any other error unchanged.
 *
 * @param action what cannot be done, such as `serve`.
 * @param packages all packages that the action needs.
 */
export function missingPackage(action: string, packages: readonly string[], error: unknown): unknown {
  // `'ws'` on Node, `"ws"` or `"npm:ws@^8.23.0"` on Deno.
  const name = packages.find((name) => new RegExp(`["'](?:npm:)?${name}["'@]`).test(String(error)));
  if (name === undefined) return error;
  // A `SyntaxError` means that an older version lacks an export.
  const state = error instanceof SyntaxError ? "has another version than Noroshi needs" : "is not installed";
  const command = installer();
  const names = packages.map((name) => command === "deno add" ? `npm:${name}` : name).join(" ");
  const remedy = command === undefined ? `install ${names}` : `run ${command} ${names}`;
  return new Error(`Cannot ${action}: the package ${name} ${state}, ${remedy}`, { cause: error });
}
