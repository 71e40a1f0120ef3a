/**
 * Whether the process runs in development: `NODE_ENV` can be read and is not `"production"`. It cannot be read on Deno without
 * `--allow-env` and on Workers without `process`.
 */
export function isDevelopment(): boolean {
  const { Deno } = globalThis as { Deno?: { permissions: { querySync(query: object): { state: string } } } }; // Of Deno, or absent.
  // Without the permission, reading it would prompt the user or throw.
  if (Deno && Deno.permissions.querySync({ name: "env", variable: "NODE_ENV" }).state !== "granted") return false;
  try {
    // Written exactly like this, because bundlers replace it.
    // deno-lint-ignore no-process-global -- as above
    return process.env.NODE_ENV !== "production";
  } catch {
    return false; // There is no `process`.
  }
}
