/** Told of every error that application code threw or rejected with. */
export type Report = (error: unknown) => void;

/**
 * Runs code of the application: a throw and a rejection both end in `report`, never in the process.
 * A rejected async callback ends a bare Node, Deno or Bun process, so every callback passes through here.
 */
export function guard(run: () => unknown, report: Report): void {
  try {
    const result = run();
    // Promise.resolve reads `then` once, inside a try of its own, so that a hostile thenable is a rejection too.
    if (typeof result === "object" && result !== null) Promise.resolve(result).catch(report);
  } catch (error) {
    report(error);
  }
}
