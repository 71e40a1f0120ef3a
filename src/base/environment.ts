/**
 * Whether the process runs in development: `NODE_ENV` is readable and is not `"production"`. `false` where it cannot be read, as on
 * Deno without `--allow-env` and on Workers without `process`.
 */
export function isDevelopment(): boolean {
  const { Deno } = globalThis as { Deno?: { permissions: { querySync(query: object): { state: string } } } }; // Of Deno, or absent.
  // Reading it without the permission would ask the user, or throw.
  if (Deno && Deno.permissions.querySync({ name: "env", variable: "NODE_ENV" }).state !== "granted") return false;
  try {
    // Written out, because bundlers replace exactly this.
    // deno-lint-ignore no-process-global -- as above
    return process.env.NODE_ENV !== "production";
  } catch {
    return false; // There is no `process`.
  }
}
